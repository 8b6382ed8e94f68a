"""A user's snapshots as columns, and their daily means. Pure; imported by the modules of this family alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from app.jobs.ari import Metric
from app.records.ari_snapshots import SnapshotPage

Floats = NDArray[np.float64]

BHIR = "bhir"
COLUMNS: tuple[str, ...] = (*Metric, BHIR)  # the order of SnapshotPage.scores

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400.0
_DECIMALS = 12  # scores are of the order of 1: what differs only beyond this is rounding, and counts as equal


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """Measurements of one user, oldest first: single snapshots, or the means of whole UTC days."""

    days: Floats  # (n,), days since 1970, rising; whole numbers in a daily series
    scores: Floats  # (n, 10) in the order of COLUMNS; bhir is NaN where it was not measured

    def __len__(self) -> int:
        return len(self.days)

    def column(self, name: str) -> Floats:
        """Return the n values of a metric or of bhir."""
        return self.scores[:, COLUMNS.index(name)]

    def moment(self, at: int) -> datetime:
        """Return when point ``at`` (from 0, or from −1 backwards) was measured."""
        return _EPOCH + timedelta(days=float(self.days[at]))

    def daily(self) -> "Series":
        """Return one point for each UTC day that has a snapshot: the mean of the day, at its midnight.

        Many snapshots of one day are not many witnesses of a trend over days.
        """
        if not len(self):
            return self
        days, starts, counts = np.unique(np.floor(self.days), return_index=True, return_counts=True)
        means = np.add.reduceat(self.scores, starts, axis=0) / counts[:, np.newaxis]
        return Series(days=days, scores=means.round(_DECIMALS))


def join_pages(pages: Sequence[Series]) -> Series:
    """Return the pages as one series, in their order."""
    if not pages:
        return Series(days=np.empty(0), scores=np.empty((0, len(COLUMNS))))
    return Series(
        days=np.concatenate([page.days for page in pages]),
        scores=np.concatenate([page.scores for page in pages]),
    )


def page_series(page: SnapshotPage) -> Series:
    """Return a page of stored snapshots as columns, 88 bytes a snapshot."""
    seconds = np.array([moment.timestamp() for moment in page.times])
    return Series(days=seconds / _DAY_S, scores=np.array(page.scores, dtype=np.float64))
