"""Which model a name means, and where its file is."""

from dataclasses import dataclass
from pathlib import Path

from app.errors import Discard, JobNotFound
from app.jobs.model import MODEL_NAME
from app.records.models import MODELS, RegisteredModel, find_model
from app.records.training_examples import read_good_examples
from workers.context import Context
from workers.families.model.backends import Backend, find_backend
from workers.families.model.examples import Example, example_of
from workers.families.model.files import read_seen
from workers.families.model.training import ModelFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a name means: an untrained backend, or a registered version."""

    backend: Backend
    version: RegisteredModel | None
    file: ModelFile | None

    @property
    def model_id(self) -> str | None:
        """The id of the version; None for an untrained backend."""
        return self.version.model_id if self.version else None


async def find(ctx: Context, user_id: str, name: str) -> Found:
    """Return what a name means for a user; raise JobNotFound for neither backend nor model of theirs."""
    backend = find_backend(name, ctx.installation.settings)
    if backend is not None:
        return Found(backend=backend, version=None, file=None)
    version = await find_model(ctx.records.database, user_id, name)
    if version is None:
        known = ", ".join(map(str, MODEL_NAME.words))
        raise JobNotFound(f"{name!r} is no model of {user_id!r}, and no backend; those are {known}.")
    return _found(ctx, version)


async def find_parent(ctx: Context, found: Found) -> Found:
    """Return what a model is compared with: its parent, or the untrained backend where there is none (any more)."""
    parent_id = found.version.parent if found.version else None
    if found.version is not None and parent_id is not None:
        parent = await ctx.records.get(MODELS, parent_id, user_id=found.version.user_id)
        if parent is not None:
            return _found(ctx, parent)
    return Found(backend=found.backend, version=None, file=None)


async def read_unseen(ctx: Context, found: Found, user_id: str, wanted: int) -> list[tuple[Example, float]]:
    """Return up to ``wanted`` of a user's newest good examples that the version never learned from.

    With each comes its time, in seconds since 1970.
    """
    seen = await ctx.run_thread(read_seen, found.file.path, found.file.sha256) if found.file else frozenset()
    unseen: list[tuple[Example, float]] = []
    database, labelled = ctx.records.database, found.backend.needs_label
    async for batch in read_good_examples(database, user_id, labelled=labelled):
        examples = [(example_of(record), record.timestamp.timestamp()) for record in batch]
        unseen += [one for one in examples if one[0].key not in seen]
        await ctx.progress(min(9.0, 9 * len(unseen) / wanted), f"read {len(unseen)} examples", stage="reading")
        if len(unseen) >= wanted:
            break
    return unseen[:wanted]


def _found(ctx: Context, version: RegisteredModel) -> Found:
    settings = ctx.installation.settings
    backend = find_backend(version.kind, settings)
    if backend is None:
        raise Discard(f"The model {version.model_id!r} is of the kind {version.kind!r}, which is no backend here.")
    if Path(version.path).name != version.path:
        raise Discard(f"The model {version.model_id!r} names a file outside the directory for trained models.")
    path = settings.models_path / version.path
    return Found(backend=backend, version=version, file=ModelFile(path=path, sha256=version.sha256))
