"""When one person works: windows, engagements, and finding blocks a place in them. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from app.jobs.ffe import STOP_AFTER_BLOCKS
from app.records.ffe_blocks import Engagement

WINDOWS = ((time(9, tzinfo=UTC), time(12, tzinfo=UTC)), (time(13, tzinfo=UTC), time(17, tzinfo=UTC)))
LONGEST_WINDOW = timedelta(hours=4)
WORKDAYS = range(5)  # Monday to Friday

_DAY = timedelta(days=1)
_QUARTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A stretch of time."""

    start: datetime
    end: datetime


class Agenda:
    """What a person has to do already. A day is full after five blocks, finished ones included."""

    def __init__(self, engagements: Iterable[Engagement], finished: Counter[date]) -> None:
        self._taken: dict[date, list[Stretch]] = defaultdict(list)
        for one in sorted(engagements, key=lambda one: one.start):
            end = one.start + timedelta(minutes=one.minutes)
            self._taken[one.start.date()].append(Stretch(start=one.start, end=end))
        self._blocks = Counter({day: len(taken) for day, taken in self._taken.items()}) + finished

    def place(self, durations: Sequence[int], since: datetime, deadline: datetime | None) -> list[datetime]:
        """Return when blocks of these minutes begin, one after the other, each whole inside a window.

        Ends before the first block that would not end by the deadline, so that nothing overtakes what it waits for.
        """
        blocks = self._blocks.copy()
        starts: list[datetime] = []
        free = since
        for minutes in durations:
            length = timedelta(minutes=minutes)
            start = self._first_fit(free, length, deadline, blocks)
            if start is None:
                break
            starts.append(start)
            blocks[start.date()] += 1
            free = start + length
        return starts

    def free_time(self, since: datetime, until: datetime) -> tuple[list[Stretch], dict[date, int]]:
        """Return the stretches in which blocks may lie, and how many more blocks each day from ``since`` on takes."""
        stretches: list[Stretch] = []
        rooms: dict[date, int] = {}
        day = since.date()
        while day <= until.date():
            is_workday = day.weekday() in WORKDAYS
            rooms[day] = max(0, STOP_AFTER_BLOCKS - self._blocks[day]) if is_workday else 0
            for free in self._free_stretches(day) if rooms[day] else ():
                start, end = max(free.start, since), min(free.end, until)
                if start < end:
                    stretches.append(Stretch(start=start, end=end))
            day += _DAY
        return stretches, rooms

    def _first_fit(
        self, since: datetime, length: timedelta, deadline: datetime | None, blocks: Counter[date]
    ) -> datetime | None:
        day = since.date()
        while deadline is None or day <= deadline.date():
            if day.weekday() in WORKDAYS and blocks[day] < STOP_AFTER_BLOCKS:
                for stretch in self._free_stretches(day):
                    start = max(stretch.start, since)
                    if start + length <= stretch.end:
                        return start if deadline is None or start + length <= deadline else None
            day += _DAY
        return None

    def _free_stretches(self, day: date) -> Iterator[Stretch]:
        for opens, closes in WINDOWS:
            free, end = datetime.combine(day, opens), datetime.combine(day, closes)
            for taken in self._taken.get(day, ()):
                if free < taken.end and taken.start < end:
                    yield Stretch(start=free, end=taken.start)
                    free = taken.end
            yield Stretch(start=free, end=end)


def next_quarter(moment: datetime) -> datetime:
    """Round up to a quarter of an hour."""
    midnight = datetime.combine(moment.date(), time(tzinfo=UTC))
    return midnight + -(-(moment - midnight) // _QUARTER) * _QUARTER
