"""Found beside the families of ``app.jobs`` by a process that :mod:`tests.chaos.member` runs."""

from tests.chaos.trial import FAMILY

__all__ = ["FAMILY"]
