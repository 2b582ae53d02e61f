"""`driftline features status`: which views the store holds whole, which are being filled, how long builds took."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from driftline.alerts.alert import to_iso
from driftline.cli.options import JsonOption, ProjectOption, echo_json, settings_for
from driftline.contracts.topics import event_partitions
from driftline.features.filling import Build, PartitionStanding, Standing, ViewStanding, read_standings
from driftline.features.online import TIMEOUT_SECONDS
from driftline.project import Project
from driftline.runtime.errors import UnavailableError
from driftline.runtime.redis_servers import ERRORS, RedisServers
from driftline.runtime.settings import PlatformSettings

_SIGNS = {
    Standing.COMPLETE: "[green]complete[/green]",
    Standing.FILLING: "[yellow]filling[/yellow]",
    Standing.BUILDING: "[yellow]building[/yellow]",
    Standing.MISSING: "[red]missing[/red]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSummary:
    """Where a view stands in all its partitions: ``parts`` has each with its number."""

    view: str
    event_type: str
    parts: tuple[tuple[int, ViewStanding], ...]

    @property
    def standing(self) -> Standing:
        """The standing of the partition that is furthest from complete."""
        order = list(Standing)
        return max((part.standing for _, part in self.parts), key=order.index)

    @property
    def left(self) -> int:
        """How many records are still to be read."""
        return sum(part.left for _, part in self.parts)

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1: the mean over the partitions."""
        return sum(part.share for _, part in self.parts) / len(self.parts)

    @property
    def seconds_left(self) -> float | None:
        """How long it may still take at the rate of the partitions that have their turn; None before there is one."""
        rates = [part.rate for _, part in self.parts if part.left and part.rate > 0]
        return self.left / sum(rates) if rates else None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "view": self.view,
            "event_type": self.event_type,
            **_told(self.standing, self.share, self.left, self.seconds_left),
            "partitions": [
                {"partition": number, **_told(one.standing, one.share, one.left, one.seconds_left)}
                for number, one in self.parts
            ],
        }


def status(
    *,
    partitions: Annotated[bool, typer.Option("--partitions", help="Each partition by itself.")] = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Say of each view whether the store holds it whole or how far it is filled, and how long partitions took to build.

    Example: driftline features status --project examples/flights
    """
    settings, loaded = settings_for(project)
    standings = standings_of(settings, loaded)
    views = summaries(standings)
    if as_json:
        builds = [
            {"event_type": one.event_type, "partition": one.partition, **build.as_json()}
            for one in standings
            for build in one.builds
        ]
        echo_json({"views": [view.as_json() for view in views], "builds": builds})
        return
    console = Console()
    console.print(_table(views, partitions=partitions))
    for line in build_lines(standings):
        console.print(line, highlight=False, soft_wrap=True)


def standings_of(settings: PlatformSettings, project: Project) -> list[PartitionStanding]:
    """Ask the store where every view stands; UnavailableError where it does not answer."""
    topics = settings.topics(project)
    with closing(RedisServers(settings.redis_url, timeout=TIMEOUT_SECONDS)) as servers:
        try:
            return read_standings(
                servers.mget,
                prefix=topics.prefix,
                project=project,
                partitions=event_partitions(topics, project),
            )
        except ERRORS as error:
            raise UnavailableError(f"the feature store's Redis does not answer: {error}") from error


def summaries(standings: Sequence[PartitionStanding]) -> list[ViewSummary]:
    """Return every view over its partitions, in declared order."""
    found: dict[tuple[str, str], list[tuple[int, ViewStanding]]] = defaultdict(list)
    for one in standings:
        for view in one.views:
            found[one.event_type, view.view].append((one.partition, view))
    return [
        ViewSummary(view=view, event_type=event_type, parts=tuple(parts))
        for (event_type, view), parts in found.items()
    ]


def build_lines(standings: Sequence[PartitionStanding]) -> list[str]:
    """Return how long building each event type's partitions took, the last time, or that it goes on."""
    found: dict[str, list[Build]] = defaultdict(list)
    for one in standings:
        found[one.event_type] += [build for build in one.builds if not build.views]
    return [_build_line(event_type, builds) for event_type, builds in found.items() if builds]


def _build_line(event_type: str, builds: Sequence[Build]) -> str:
    done = [one for one in builds if one.finished_us is not None and one.seconds is not None]
    begun_us = min(one.begun_us for one in builds)
    if len(done) < len(builds):
        return f"{event_type}: {len(done)} of {len(builds)} partitions are built, since {to_iso(begun_us)}"
    longest = max(one.seconds or 0.0 for one in done)
    records = sum(one.records for one in done)
    return (
        f"{event_type}: built from {records:,} records in {longest:,.1f} s (the longest of "
        f"{len(done)} partitions), begun at {to_iso(begun_us)}"
    )


def _table(views: Sequence[ViewSummary], *, partitions: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("view", "partition", "", "done", "records left", "time left"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in {"view", ""} else "right")
    for view in views:
        _add(table, view.view, "all", view.standing, view.share, view.left, view.seconds_left)
        for number, one in view.parts if partitions else ():
            _add(table, "", str(number), one.standing, one.share, one.left, one.seconds_left)
    return table


def _add(
    table: Table, view: str, place: str, standing: Standing, share: float, left: int, seconds: float | None
) -> None:
    over = standing is Standing.COMPLETE
    table.add_row(
        view,
        place,
        _SIGNS[standing],
        "" if over else f"{min(99, int(share * 100))}%",
        "" if over else f"{left:,}",
        "" if over or seconds is None else f"{seconds:,.0f} s",
    )


def _told(standing: Standing, share: float, left: int, seconds: float | None) -> dict[str, Any]:
    return {
        "standing": standing.value,
        "share": round(share, 4),
        "records_left": left,
        "seconds_left": None if seconds is None else round(seconds, 1),
    }
