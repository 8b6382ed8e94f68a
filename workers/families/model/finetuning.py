"""The work of ``model.finetune``: choose and split the examples, train in a child process, register the version."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import JsonValue

from app.errors import InsufficientData
from app.jobs import model
from app.jobs.model import FinetuneParams, FinetuneResult, HeldOutMetrics
from app.records.models import MODELS, RegisteredModel, next_version
from workers.context import Context
from workers.families import work
from workers.families.model.examples import Example, fingerprint, split
from workers.families.model.files import clear_unfinished, mark_of
from workers.families.model.registry import Found, find, read_unseen
from workers.families.model.training import Trained, Training, train

LEAST_EXAMPLES = 10  # so that at least one of ten is held out

_TUNABLE = ("training_samples", "learning_rate")


@work(model.finetune)
async def finetune(ctx: Context, params: FinetuneParams) -> FinetuneResult:
    """Train a version on the user's newest good examples; the same training again is the same version."""
    found = await find(ctx, params.user_id, _pinned(ctx) or params.model_name)
    if found.model_id:  # a retry must not go on from the version that it has registered itself
        await ctx.checkpoint({**_restored(ctx), "parent": found.model_id})
    dated = await read_unseen(ctx, found, params.user_id, params.training_samples)
    if len(dated) < LEAST_EXAMPLES:
        raise InsufficientData(_too_few(found, len(dated)))
    training = await ctx.run_thread(_training, ctx, params, found, [example for example, _ in dated])
    kept = training.unfinished if "part" in _restored(ctx) else None
    await ctx.run_thread(clear_unfinished, training.target.parent, training.mark, spared=kept)
    trained = await ctx.run_process(train, training)
    if trained.metrics.loss is None:
        raise InsufficientData("The examples that were held out hold nothing to judge a model on.")
    version = await _register(ctx, found, training, trained, [at for _, at in dated])
    await ctx.run_thread(clear_unfinished, training.target.parent, training.mark)
    await ctx.progress(100, f"registered {version.name} version {version.version}", stage="done")
    return FinetuneResult(
        user_id=params.user_id,
        model_name=params.model_name,
        model_id=version.model_id,
        name=version.name,
        version=version.version,
        parent=version.parent,
        kind=version.kind,
        path=version.path,
        sha256=version.sha256,
        training_samples=len(training.examples),
        held_out_samples=len(training.held_out),
        steps=trained.steps,
        stopped_early=trained.stopped_early,
        metrics=_held_out(trained),
        ignored_parameters=tuple(name for name in _TUNABLE if name not in found.backend.uses),
        training_timestamp=ctx.now,
    )


def _restored(ctx: Context) -> dict[str, JsonValue]:
    return ctx.restored if isinstance(ctx.restored, dict) else {}


def _pinned(ctx: Context) -> str | None:
    parent = _restored(ctx).get("parent")
    return parent if isinstance(parent, str) else None


def _too_few(found: Found, count: int) -> str:
    kind = " with a label" if found.backend.needs_label else ""
    unseen = " that the model has not learned from" if found.file else ""
    return f"There are {count} examples of quality ≥ .7{kind}{unseen}; at least {LEAST_EXAMPLES} are needed."


def _training(ctx: Context, params: FinetuneParams, found: Found, examples: Sequence[Example]) -> Training:
    learned, held_out = split(examples)
    rate = params.learning_rate if "learning_rate" in found.backend.uses else None
    model_id = fingerprint(params.user_id, found.backend.name, found.model_id, rate, examples=[*learned, *held_out])
    return Training(
        user_id=params.user_id,
        backend=found.backend,
        examples=tuple(learned),
        held_out=tuple(held_out),
        learning_rate=params.learning_rate,
        parent_id=found.model_id,
        parent=found.file,
        target=ctx.installation.settings.models_path / f"{model_id}{found.backend.suffix}",
        mark=mark_of(ctx.job_id),
    )


def _held_out(trained: Trained) -> HeldOutMetrics:
    return HeldOutMetrics.model_validate(trained.metrics.model_dump(include=set(HeldOutMetrics.model_fields)))


async def _register(
    ctx: Context, found: Found, training: Training, trained: Trained, times: Sequence[float]
) -> RegisteredModel:
    model_id = training.target.stem
    name = found.version.name if found.version else f"{found.backend.name.replace(':', '-')}-tuned"
    known = await ctx.records.get(MODELS, model_id, user_id=training.user_id)
    version = RegisteredModel(
        model_id=model_id,
        user_id=training.user_id,
        timestamp=known.timestamp if known else ctx.now,
        name=name,
        version=known.version if known else await next_version(ctx.records.database, training.user_id, name),
        kind=found.backend.name,
        path=training.target.name,
        sha256=trained.sha256,
        metrics=_held_out(trained).model_dump(),
        parent=found.model_id,
        data_from=datetime.fromtimestamp(min(times), UTC),
        data_until=datetime.fromtimestamp(max(times), UTC),
    )
    await ctx.records.upsert(MODELS, [version])
    return version
