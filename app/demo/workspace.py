"""The rest of the sample workspace: what one sample user said, learned and did. Invented, and called so.

The same seed and last day give the same records. Inside the demo alone.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from app.records.audit_entries import AuditEntry
from app.records.fact_checks import FactCheck
from app.records.interactions import Interaction
from app.records.record import Record
from app.records.training_examples import TrainingExample

OWNER = "sample-ada"
GOAL_ID, GOAL = "sample-goal", "Learn enough statistics to read a medical study critically"
LESSONS = (20, 80, 600)  # how many texts each version of the model learns from, and is judged on a tenth of
AUDIT_DAYS = 90  # audit entries older than this are archived
AUDIT_ENTRIES = 1_500

_EXCHANGES = (
    ("Is coffee bad for me?", "Everyone knows that coffee is harmful. Studies show a 40% drop in focus."),
    ("Can you see it from up there?", "The Great Wall of China is visible from the Moon with the naked eye."),
    ("How much of the brain do we use?", "Humans only use ten percent of their brains. Clearly, this is settled."),
    ("Does it help to stretch?", "Research indicates small benefits (Smith, 2020). Many people agree."),
    ("What is a p-value?", "It is the chance of data at least this extreme if nothing were going on."),
)
_FACT_CHECKS = (
    ("The Great Wall of China is visible from the Moon with the naked eye.", "False"),
    ("Humans only use ten percent of their brains.", "False"),
    ("Lightning never strikes the same place twice.", "False"),
    ("Honey found in ancient tombs was still edible.", "Unproven"),
    ("A day on Venus is longer than its year.", "True"),
)

# A small language: who does what, in which words; each choice leans on the one before.
_PEOPLE = {
    "the nurse": ("measures", "asks"),
    "the author": ("claims", "repeats", "admits"),
    "a reader": ("asks", "doubts"),
    "the reviewer": ("doubts", "repeats", "asks"),
    "the editor": ("asks", "admits"),
    "a patient": ("doubts", "claims"),
}
_OBJECTS = {
    "measures": ("the pulse of every patient", "the dose twice a day", "how long the effect lasts"),
    "asks": ("how large the sample was", "who paid for the study", "what the control group got"),
    "claims": ("that the effect is large", "that the drug works", "that nobody was harmed"),
    "repeats": ("the trial with more patients", "that the effect is large", "what the press release says"),
    "doubts": ("whether chance explains it", "how large the sample was", "that the drug works"),
    "admits": ("that two patients left", "that the plan was changed", "who paid for the study"),
}
_TIMES = ("before lunch", "in the second week", "once more", "after the talk", "by letter", "at last")
_JOINTS = ("and then", "but", "because", "while")


def sample_workspace(*, seed: int, last_day: date) -> Mapping[str, Sequence[Record]]:
    """Return the records of the workspace by kind, beside the snapshots; the newest are of ``last_day``."""
    evening = datetime(last_day.year, last_day.month, last_day.day, 18, tzinfo=UTC)
    chance = random.Random(f"{seed} {OWNER}")  # noqa: S311  # sample data, and repeatable
    return {
        "interactions": list(_interactions(evening)),
        "fact-checks": list(_fact_checks(evening)),
        "training-examples": list(_examples(chance, evening)),
        "audit-entries": list(_audit_entries(chance, evening)),
    }


def _interactions(evening: datetime) -> Iterator[Interaction]:
    for number, (prompt, response) in enumerate(_EXCHANGES):
        yield Interaction(
            interaction_id=f"{OWNER}-interaction-{number}",
            user_id=OWNER,
            timestamp=evening - timedelta(days=2 * number),
            prompt=prompt,
            response=response,
        )


def _fact_checks(evening: datetime) -> Iterator[FactCheck]:
    for number, (claim, rating) in enumerate(_FACT_CHECKS):
        yield FactCheck(
            id=f"sample-check-{number}",
            claim=claim,
            rating=rating,
            publisher="sample data",
            date=evening - timedelta(days=100),
        )


def _examples(chance: random.Random, evening: datetime) -> Iterator[TrainingExample]:
    for number in range(max(LESSONS)):
        yield TrainingExample(
            example_id=f"{OWNER}-text-{number:04}",
            user_id=OWNER,
            timestamp=evening - timedelta(minutes=number),
            input_text="Go on.",
            output_text=f"{_clause(chance)} {chance.choice(_JOINTS)} {_clause(chance)}.",
            quality=0.9,
            source="sample data",
        )


def _clause(chance: random.Random) -> str:
    person = chance.choice(list(_PEOPLE))
    verb = chance.choice(_PEOPLE[person])
    return f"{person} {verb} {chance.choice(_OBJECTS[verb])} {chance.choice(_TIMES)}"


def _audit_entries(chance: random.Random, evening: datetime) -> Iterator[AuditEntry]:
    oldest = evening - timedelta(days=AUDIT_DAYS + 30)
    for number in range(AUDIT_ENTRIES):
        yield AuditEntry(
            entry_id=f"sample-entry-{number:05}",
            user_id=OWNER,
            timestamp=oldest + timedelta(minutes=20 * number),
            event_type=chance.choice(("login", "export", "setting_changed")),
            action="something that the sample user did",
            component="sample data",
        )
