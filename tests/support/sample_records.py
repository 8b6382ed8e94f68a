"""One valid record of every kind, as a client sends it; all that belong to somebody belong to ada."""

from typing import Any

from app.jobs.ari import Metric

AT = "2026-01-01T00:00:00Z"

SAMPLES: dict[str, dict[str, Any]] = {
    "alerts": {
        "alert_id": "no_worker/all/1",
        "name": "no_worker",
        "subject": "all",
        "episode": 1,
        "severity": "critical",
        "message": "No worker was heard of lately.",
        "value": 0,
        "threshold": 1,
        "raised_at": AT,
        "last_seen_at": AT,
    },
    "ari-snapshots": {
        "snapshot_id": "snapshot-1",
        "user_id": "ada",
        "timestamp": AT,
        **{metric.value: 0.5 for metric in Metric},
    },
    "audit-entries": {
        "entry_id": "entry-1",
        "user_id": "ada",
        "timestamp": AT,
        "event_type": "login",
        "action": "signed in",
    },
    "edm-debts": {
        "debt_id": "debt-1",
        "user_id": "ada",
        "timestamp": AT,
        "claim": "Studies show that coffee helps.",
        "debt_type": "missing_citation",
        "severity": "high",
    },
    "fact-checks": {"id": "check-1", "claim": "The earth is flat.", "rating": "False", "date": AT},
    "ffe-blocks": {
        "block_id": "block-1",
        "user_id": "ada",
        "goal_id": "goal-1",
        "timestamp": AT,
        "index": 0,
        "title": "Read the first chapter",
        "done_criterion": "The chapter is read.",
        "size": "medium",
        "estimated_minutes": 45,
    },
    "ffe-goals": {"goal_id": "goal-1", "user_id": "ada", "timestamp": AT, "description": "Learn to read music"},
    "interactions": {
        "interaction_id": "interaction-1",
        "user_id": "ada",
        "timestamp": AT,
        "prompt": "Is coffee healthy?",
        "response": "Studies show that it is.",
    },
    "models": {
        "model_id": "model-1",
        "user_id": "ada",
        "timestamp": AT,
        "name": "kneser-ney-tuned",
        "version": 1,
        "kind": "kneser-ney",
        "path": "model-1.npz",
        "sha256": "0" * 64,
        "metrics": {"loss": 1.5},
    },
    "training-examples": {
        "example_id": "example-1",
        "user_id": "ada",
        "timestamp": AT,
        "input_text": "What is the capital of France?",
        "output_text": "Paris.",
        "quality": 0.9,
    },
}
