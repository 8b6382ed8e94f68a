"""The contract of a job type: everything the rest of the service derives from, in one value.

Route, validation, catalogue, CLI, metrics labels and documentation all follow from a :class:`JobType`.
The work that fulfils it lives in ``workers/families/`` and is never imported from here.
"""

import random
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Literal, TypeVar

from app.errors import Misconfigured
from app.jobs.fields import Params, Result

P_co = TypeVar("P_co", bound=Params, covariant=True)
R_co = TypeVar("R_co", bound=Result, covariant=True)

_KIND = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")

MAX_RETRY_DELAY_S = 600.0
RETRY_SPREAD = 0.2


class TaskType(StrEnum):
    """The broad classes that clients filter by."""

    ARI_SNAPSHOT = "ari_snapshot"
    FFE_PLANNING = "ffe_planning"
    EDM_ANALYSIS = "edm_analysis"
    MODEL_TRAINING = "model_training"
    MAINTENANCE = "maintenance"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and after what delays, a failed attempt is tried again."""

    max_retries: int = 3
    base_s: float = 60.0
    max_s: float = MAX_RETRY_DELAY_S

    def delay_s(self, retry: int) -> float:
        """Return the seconds before retry number ``retry`` (from 0): min(base·2^retry, max) ± 20 %."""
        full = min(self.base_s * 2.0 ** min(retry, 30), self.max_s)
        return full * random.uniform(1 - RETRY_SPREAD, 1 + RETRY_SPREAD)  # noqa: S311  # jitter, not a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long one attempt may run, in seconds."""

    hard_s: float = 1800.0  # the attempt is cancelled
    soft_s: float = 1500.0  # SoftTimeLimitExceeded at the job's next use of its context


LIGHT = Limits(hard_s=600.0, soft_s=540.0)
LONG = Limits(hard_s=3600.0, soft_s=3300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """Libraries beyond the default install."""

    name: str  # what to install: asyncjobs-service[name]
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A name that means something without any record of it."""

    text: str
    extra: Extra | None = None  # without which it means nothing
    below: str | None = None  # a property of Settings, a directory: the name is then "text:one" of those inside it

    def matches(self, name: str) -> bool:
        """Tell whether a name is this word."""
        return name == self.text or (self.below is not None and name.startswith(f"{self.text}:"))

    def __str__(self) -> str:
        return self.text if self.below is None else f"{self.text}:<directory>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A param that names what must exist when a job is submitted; :mod:`app.references` looks it up."""

    field: str
    what: str  # for people: "model"
    records: str  # the kind of record that is named, one of the user's
    by: tuple[str, ...]  # the fields of such a record that it may be named by
    words: tuple[Word, ...] = ()

    def word(self, name: str) -> Word | None:
        """Return the word that a name is, None if it is to be a record's."""
        return next((word for word in self.words if word.matches(name)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType(Generic[P_co, R_co]):
    """One kind of work that can be submitted."""

    kind: str  # stable dotted name, never reused: "ari.aggregate_snapshots"
    summary: str  # one sentence for people, in the catalogue and the API docs
    params: type[P_co]
    result: type[R_co]
    queue: str
    task_type: TaskType
    priority: int = 5  # 1–10, higher first
    max_priority: int = 10  # a higher request is lowered to this, and the answer says so
    retry: RetryPolicy = RetryPolicy()
    limits: Limits = Limits()
    aliases: tuple[str, ...] = ()  # other names that enqueue and execute accept
    is_admin_only: bool = False
    is_internal: bool = False  # the service alone submits it: it has no route, and no list names it
    reference: Reference | None = None  # what the params name, and who submits is told at once if it is not there

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise Misconfigured(f"A kind is 'family.name' in lower case, not {self.kind!r}.")
        if not 1 <= self.priority <= self.max_priority <= 10:
            raise Misconfigured(f"{self.kind}: priority {self.priority} is outside 1–{self.max_priority}.")
        if not 0 < self.limits.soft_s <= self.limits.hard_s:
            raise Misconfigured(f"{self.kind}: the soft limit must not be above the hard limit.")
        if self.reference is not None and self.reference.field not in self.params.model_fields:
            raise Misconfigured(f"{self.kind}: its params have no field {self.reference.field!r} to name anything by.")

    @property
    def family(self) -> str:
        """The part of the kind before the dot."""
        return self.kind.partition(".")[0]

    @property
    def route(self) -> str:
        """The path of its submit route under ``/api/tasks/``: ``ari/aggregate-snapshots``."""
        return self.kind.replace(".", "/").replace("_", "-")

    @property
    def subject(self) -> Literal["none", "required", "optional"]:
        """Whether its params name a user: not at all, always, or where None means all users."""
        field = self.params.model_fields.get("user_id")
        if field is None:
            return "none"
        return "required" if field.is_required() else "optional"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The job types of one domain. Its module in ``workers/families/`` has the same name."""

    name: str
    summary: str
    job_types: tuple["JobType[Params, Result]", ...]
