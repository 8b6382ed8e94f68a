"""The catalogue: every job type there is, found by family module and refused when double or incomplete."""

import pkgutil
from collections.abc import Iterable, Iterator
from importlib import import_module

import app.jobs
from app.errors import Misconfigured, UnknownTask
from app.jobs.contract import Family, JobType
from app.jobs.fields import Params, Result

AnyJobType = JobType[Params, Result]

QUEUE_ALIASES = {"system": "default"}  # names that older clients use


class Catalogue:
    """All job types by kind, by alias and by queue; iterating gives those that people may submit."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.families: dict[str, Family] = {}
        self._by_kind: dict[str, AnyJobType] = {}
        self._by_name: dict[str, AnyJobType] = {}
        for family in families:
            self._add(family)

    def _add(self, family: Family) -> None:
        if family.name in self.families:
            raise Misconfigured(f"The family {family.name!r} is defined twice.")
        if not family.job_types:
            raise Misconfigured(f"The family {family.name!r} has no job types.")
        self.families[family.name] = family
        for job_type in family.job_types:
            if job_type.family != family.name:
                raise Misconfigured(f"{job_type.kind} does not belong into the family {family.name!r}.")
            self._by_kind[job_type.kind] = job_type
            for name in () if job_type.is_internal else (job_type.kind, *job_type.aliases):
                if name in self._by_name:
                    raise Misconfigured(f"The name {name!r} means both {self._by_name[name].kind} and {job_type.kind}.")
                self._by_name[name] = job_type

    def __iter__(self) -> Iterator[AnyJobType]:
        return (job_type for job_type in self._by_kind.values() if not job_type.is_internal)

    @property
    def all(self) -> tuple[AnyJobType, ...]:
        """Every job type, also those that the service alone submits."""
        return tuple(self._by_kind.values())

    def get(self, kind: str) -> AnyJobType | None:
        """Return the job type of a kind, or None if this version of the service does not know it."""
        return self._by_kind.get(kind)

    def find(self, name: str) -> AnyJobType:
        """Return the job type that a kind or an alias means; raise :class:`UnknownTask` for any other name."""
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(sorted(job_type.kind for job_type in self))
            raise UnknownTask(f"There is no task named {name!r}; known are: {known}.", name=name) from None

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of all queues, sorted."""
        return tuple(sorted({job_type.queue for job_type in self.all}))


def load_catalogue() -> Catalogue:
    """Import every family module of ``app.jobs`` and build the catalogue; raise Misconfigured on a double."""
    modules = (import_module(f"app.jobs.{found.name}") for found in pkgutil.iter_modules(app.jobs.__path__))
    return Catalogue(module.FAMILY for module in modules if hasattr(module, "FAMILY"))
