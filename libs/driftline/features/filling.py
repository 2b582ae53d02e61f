"""Which views the store holds whole, which are being filled and how far, and when each was built.

Each partition of an event type has three keys beside its owner key, written by the feature store alone:

- ``views``: the *complete* views, those of which the owner key's offset holds true, each with the fingerprint of its
  layout; and those that were *left* behind, whose blobs may still be there and are true of no offset. A store of before
  this key has none: whoever reads takes all its views for complete.
- ``fill``: the views that are being filled, and the offset up to which they are. No key: nothing is filled.
- ``builds``: the last times that the partition was built from the beginning, or views of it filled.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

import orjson

from driftline.features.keys import builds_key, fill_key, owner_key, parse_owner, views_key
from driftline.features.layout import ViewLayout
from driftline.project.declaration import Project

#: Reads values of keys, None where there is none, like Redis's MGET.
Mget = Callable[[Sequence[str]], Sequence[bytes | None]]
#: Fingerprints of stored views' layouts, by the views' references.
Fingerprints = Mapping[str, int]

_KEPT_BUILDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredViews:
    """Views of which a partition's offset holds true, and those whose blobs may be there and are true of none."""

    complete: Fingerprints
    left: tuple[str, ...] = ()

    def format(self) -> bytes:
        """Return the form that is stored.

        >>> StoredViews(complete={"b@1": 7, "a@1": 5}).format()
        b'{"complete":{"a@1":5,"b@1":7},"left":[]}'
        """
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def parse(cls, stored: bytes) -> Self:
        """Read the stored form."""
        told = orjson.loads(stored)
        return cls(complete=told["complete"], left=tuple(told["left"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """Views that are being filled with the records from ``start`` on; ``offset`` comes next.

    ``gone`` counts records before ``start``, or after, that neither topic nor archive had any more. ``events`` are those
    that counted, ``rate`` is in records a second, ``clearing`` are the views of which something is still to be deleted
    before the first record.
    """

    views: Fingerprints
    clearing: tuple[str, ...] = ()
    start: int | None = None
    offset: int = 0
    gone: int = 0
    events: int = 0
    rate: float = 0.0
    begun_us: int = 0

    def share(self, live_offset: int) -> float:
        """Return how much is done, from 0 to 1.

        >>> Fill(views={"a@1": 5}, start=100, offset=150).share(300)
        0.25
        """
        if self.start is None:
            return 0.0
        total = live_offset - self.start
        return 1.0 if total <= 0 else min(1.0, (self.offset - self.start) / total)

    def left(self, live_offset: int) -> int:
        """Return how many offsets are still to be read."""
        return max(0, live_offset - self.offset)

    def seconds_left(self, live_offset: int) -> float | None:
        """Return how long it may still take, in seconds; None where that cannot be said yet."""
        return self.left(live_offset) / self.rate if self.rate > 0 else None

    def format(self) -> bytes:
        """Return the form that is stored."""
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def parse(cls, stored: bytes) -> Self:
        """Read the stored form.

        >>> fill = Fill(views={"a@1": 5}, clearing=("a@1",), start=2, offset=9)
        >>> Fill.parse(fill.format()) == fill
        True
        """
        told = orjson.loads(stored)
        return cls(**{**told, "clearing": tuple(told["clearing"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One time that a partition was built from its oldest record (no ``views``), or views of it were filled.

    ``stop`` is the offset at which it counts, or counted, as done; ``seconds`` None while it goes on.
    """

    views: tuple[str, ...] = ()
    start: int
    stop: int
    gone: int = 0
    begun_us: int
    finished_us: int | None = None
    seconds: float | None = None
    events: int | None = None

    @property
    def records(self) -> int:
        """How many offsets it read."""
        return max(0, self.stop - self.start)

    def finished(self, stop: int, now_us: int) -> "Build":
        """Return it, done at an offset and an instant."""
        return replace(self, stop=stop, finished_us=now_us, seconds=(now_us - self.begun_us) / 1e6)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "records": self.records}


@dataclass(frozen=True, slots=True, kw_only=True)
class Builds:
    """The last builds of a partition, the oldest first; of those from the beginning only the newest."""

    builds: tuple[Build, ...] = ()

    @property
    def building(self) -> Build | None:
        """The build from the beginning that goes on."""
        return next((one for one in self.builds if not one.views and one.finished_us is None), None)

    def with_one(self, build: Build) -> "Builds":
        """Return these and one more; a build from the beginning replaces whatever was before it."""
        before = self.builds if build.views else ()
        return Builds(builds=(*before, build)[-_KEPT_BUILDS:])

    def done(self, build: Build) -> "Builds":
        """Return these, the build from the beginning being over."""
        return Builds(builds=tuple(one if one.views else build for one in self.builds))

    def format(self) -> bytes:
        """Return the form that is stored."""
        return orjson.dumps([asdict(one) for one in self.builds])

    @classmethod
    def parse(cls, stored: bytes | None) -> Self:
        """Read the stored form.

        >>> builds = Builds(builds=(Build(start=0, stop=7, begun_us=5),))
        >>> Builds.parse(builds.format()) == builds
        True
        """
        told = [] if stored is None else orjson.loads(stored)
        return cls(builds=tuple(Build(**{**one, "views": tuple(one["views"])}) for one in told))


class Standing(StrEnum):
    """Where a view stands in a partition."""

    COMPLETE = "complete"
    FILLING = "filling"
    #: The partition is built from its oldest record, all views together.
    BUILDING = "building"
    #: Declared, and the feature store has not begun with it.
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewStanding:
    """Where a view stands in a partition: how much of it is done (0 to 1), how many offsets are left.

    ``rate`` is in offsets a second, 0 where it waits for its turn.
    """

    view: str
    standing: Standing
    share: float = 1.0
    left: int = 0
    rate: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long it may still take; None where that cannot be said."""
        return self.left / self.rate if self.rate > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStanding:
    """What the store says of a partition; no ``next_offset`` where it never had it, or is clearing it.

    ``fill`` is the backfill that goes on.
    """

    event_type: str
    partition: int
    next_offset: int | None
    views: tuple[ViewStanding, ...]
    builds: tuple[Build, ...] = ()
    fill: Fill | None = None


def fingerprints_of(project: Project, event_type: str) -> dict[str, int]:
    """Return the fingerprints of the views that an event type feeds."""
    return {view.ref: ViewLayout.of(view).fingerprint for view in project.views_of(event_type)}


def read_standings(
    mget: Mget, *, prefix: str, project: Project, partitions: Mapping[str, int]
) -> list[PartitionStanding]:
    """Read where every view stands, in one MGET; ``partitions`` is how many each event type's topic has."""
    places = [(name, number) for name in project.fed_by for number in range(partitions[name])]
    kinds = (owner_key, views_key, fill_key, builds_key)
    found = mget([kind(prefix, name, number) for name, number in places for kind in kinds])
    declared = {name: fingerprints_of(project, name) for name in project.fed_by}
    return [
        _standing(name, number, declared[name], found[4 * place : 4 * place + 4])
        for place, (name, number) in enumerate(places)
    ]


def _standing(
    event_type: str, partition: int, declared: Fingerprints, found: Sequence[bytes | None]
) -> PartitionStanding:
    owner, stored, filling, builds = found
    next_offset = None if owner is None else max(-1, parse_owner(owner)[1])
    known = Builds.parse(builds)
    fill = None if filling is None else Fill.parse(filling)
    if next_offset is None or next_offset < 0:
        nothing = Standing.MISSING if next_offset is None else Standing.BUILDING
        views = [ViewStanding(view=ref, standing=nothing, share=0.0) for ref in declared]
        next_offset = None
    else:
        complete = declared if stored is None else StoredViews.parse(stored).complete
        views = [
            _view(ref, print_, next_offset, complete, fill, known.building)
            for ref, print_ in declared.items()
        ]
    return PartitionStanding(
        event_type=event_type,
        partition=partition,
        next_offset=next_offset,
        views=tuple(views),
        builds=known.builds,
        fill=fill,
    )


def _view(
    ref: str,
    fingerprint: int,
    next_offset: int,
    complete: Fingerprints,
    fill: Fill | None,
    building: Build | None,
) -> ViewStanding:
    if complete.get(ref) == fingerprint:
        if building is None:
            return ViewStanding(view=ref, standing=Standing.COMPLETE)
        done = Fill(views={}, start=building.start, offset=next_offset)
        return ViewStanding(
            view=ref,
            standing=Standing.BUILDING,
            share=done.share(building.stop),
            left=done.left(building.stop),
        )
    if fill is None or fill.views.get(ref) != fingerprint:
        return ViewStanding(view=ref, standing=Standing.MISSING, share=0.0, left=next_offset)
    return ViewStanding(
        view=ref,
        standing=Standing.FILLING,
        share=fill.share(next_offset),
        left=fill.left(next_offset),
        rate=fill.rate,
    )


def incomplete_views(standings: Sequence[PartitionStanding]) -> dict[str, str]:
    """Return why views must not be served yet, by reference: they lack a part of their history.

    A partition that the store never had, or that is built from the beginning, is not what this is about: there all
    views are short alike, and served as such.
    """
    done: dict[str, float] = {}
    total: dict[str, int] = {}
    standing: dict[str, set[Standing]] = {}
    for partition in standings:
        if partition.next_offset is None:
            continue
        for view in partition.views:
            weight = max(1, partition.next_offset)
            whole = view.standing in (Standing.COMPLETE, Standing.BUILDING)
            done[view.view] = done.get(view.view, 0.0) + weight * (1.0 if whole else view.share)
            total[view.view] = total.get(view.view, 0) + weight
            standing.setdefault(view.view, set()).add(view.standing)
    return {
        ref: _reason(ref, done[ref] / total[ref], kinds)
        for ref, kinds in standing.items()
        if kinds & {Standing.FILLING, Standing.MISSING}
    }


def _reason(ref: str, share: float, kinds: set[Standing]) -> str:
    if kinds == {Standing.MISSING}:
        return f"feature view {ref} is not in the store yet: feature_store fills it once it runs with this project"
    # Not all there yet is never shown as 100%.
    return f"feature view {ref} is being filled ({min(99, int(share * 100))}%)"
