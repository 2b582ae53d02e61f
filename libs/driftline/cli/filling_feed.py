"""When views began to be filled and when they were full, for the feed of `driftline activity`. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from driftline.cli.activity_feed import Entry, Subject
from driftline.features.filling import Build, PartitionStanding

_BY = "feature_store"


@dataclass(frozen=True, slots=True)
class _Part:
    partition: int
    build: Build


def filling_feed(standings: Iterable[PartitionStanding]) -> list[Entry]:
    """Return an entry for each time that views began to be filled, or that it was over in all partitions.

    So too for partitions that were built from their oldest record.
    """
    found: dict[tuple[str, tuple[str, ...]], list[_Part]] = defaultdict(list)
    for one in standings:
        for build in (*one.builds, *_going_on(one)):
            found[one.event_type, build.views].append(_Part(one.partition, build))
    return [
        entry
        for (event_type, views), parts in found.items()
        for times in _times(parts)
        for entry in _entries(event_type, views, times)
    ]


def _going_on(standing: PartitionStanding) -> Iterator[Build]:
    fill = standing.fill
    if fill is not None and fill.start is not None:
        yield Build(
            views=tuple(sorted(fill.views)),
            start=fill.start,
            stop=standing.next_offset or fill.start,
            begun_us=fill.begun_us,
        )


def _times(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Yield the partitions of each time: a partition that comes again belongs to the next."""
    held: list[_Part] = []
    for part in sorted(parts, key=lambda one: one.build.begun_us):
        if any(one.partition == part.partition for one in held):
            yield held
            held = []
        held.append(part)
    yield held


def _entries(event_type: str, views: tuple[str, ...], parts: Sequence[_Part]) -> Iterator[Entry]:
    builds = [one.build for one in parts]
    what = ", ".join(views) if views else f"every view of {event_type}"
    begun_us = min(one.begun_us for one in builds)
    records = sum(one.records for one in builds)
    how = "filled" if views else "built from the oldest record on"
    yield _entry(begun_us, f"{what}: begun to be {how}", f"{event_type}/{what}/{begun_us}")
    if any(one.finished_us is None for one in builds):
        return
    finished_us = max(one.finished_us or 0 for one in builds)
    seconds = (finished_us - begun_us) / 1e6
    events = sum(one.events or 0 for one in builds)
    counted = f", {events:,} events that count" if views else ""
    gone = sum(one.gone for one in builds)
    lost = f", {gone:,} more are gone" if gone else ""
    text = f"{what}: {how}, {records:,} records{counted}{lost}, in {seconds:,.1f} s"
    yield _entry(finished_us, text, f"{event_type}/{what}/{finished_us}")


def _entry(at_us: int, text: str, record_id: str) -> Entry:
    return Entry(at_us=at_us, subject=Subject.VIEW, model=None, text=text, by=_BY, record_id=record_id)
