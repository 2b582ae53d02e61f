"""`driftline parity`: were the served feature values what their events give?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from driftline.alerts.alert import to_iso
from driftline.cli.archive import DEFAULT_ARCHIVE, ArchiveOption, EnvironmentOption, archive_of
from driftline.cli.options import JsonOption, ProjectOption, echo_json
from driftline.project import load_project
from driftline.replay.parity import GRACE_US, ParityLook, look_at_parity
from driftline.replay.records import ArchiveRecords
from driftline.runtime.clock import SystemClock, text_us
from driftline.runtime.durations import DAY_US, parse_duration_us
from driftline.runtime.errors import ConfigurationError, RefusedError

_SETTLE_US = 120_000_000


def parity(
    *,
    since: Annotated[
        str,
        typer.Option(
            "--since", "--from", help="Answered from this instant on; a day before the end if left out."
        ),
    ] = "",
    until: Annotated[
        str,
        typer.Option("--until", "--to", help="Answered before this instant; two minutes ago if left out."),
    ] = "",
    share: Annotated[
        float, typer.Option(min=0.0001, max=1.0, help="Share of the requests to look at.")
    ] = 0.1,
    grace: Annotated[
        str, typer.Option(help="How far the feature store may have been behind the log, like 5s.")
    ] = f"{GRACE_US // 1_000_000}s",
    project: ProjectOption = Path(),
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    environment: EnvironmentOption = "",
    as_json: JsonOption = False,
) -> None:
    """Compute a share of the served feature values again from the archived events, and compare them bit for bit.

    The exit code is 1 where any differs. The archiver does this now and then by itself, and raises an alert.

    Example: driftline parity --since 2026-06-01 --share 1
    """
    loaded = load_project(project)
    until_us = _instant("--until", until) if until else SystemClock().now_us() - _SETTLE_US
    since_us = _instant("--since", since) if since else until_us - DAY_US
    if since_us >= until_us:
        raise ConfigurationError("the span is empty: --since must be before --until")
    with Console(stderr=True, quiet=as_json).status("Reading the archive") as status:
        look = look_at_parity(
            loaded,
            ArchiveRecords(archive_of(loaded, archive, environment), status.update),
            since_us=since_us,
            until_us=until_us,
            share=share,
            grace_us=_duration("--grace", grace),
        )
    if not look.values:
        raise RefusedError(
            f"nothing to compare: the archive has no request answered from {to_iso(since_us)} to {to_iso(until_us)} that was "
            "served the features as they are declared; name another span with --since and --until, or a larger --share",
            status=404,
            title="No such request",
        )
    if as_json:
        echo_json({"since": to_iso(since_us), "until": to_iso(until_us), "share": share, **look.as_json()})
    else:
        _print(look)
    if look.different:
        raise typer.Exit(1)


def _print(look: ParityLook) -> None:
    console = Console()
    in_flight = sum(one.in_flight for one in look.columns.values())
    console.print(
        f"{look.requests:,} requests, {look.values:,} values computed again: "
        f"{sum(one.different for one in look.different):,} differ"
        + (f"; {in_flight:,} had an event on its way" if in_flight else "")
        + (
            f"; {look.other_versions:,} requests read views as they are declared no more"
            if look.other_versions
            else ""
        ),
        highlight=False,
        soft_wrap=True,
    )
    if not look.different:
        return
    table = Table("column")
    for heading in ("compared", "different", "share", "largest", "null on one side", "request"):
        table.add_column(heading, justify="right")
    for one in look.different:
        table.add_row(
            one.column,
            f"{one.compared:,}",
            f"{one.different:,}",
            f"{one.mismatch_rate:.2%}",
            f"{one.max_difference:.6g}",
            f"{one.nulls:,}",
            one.example or "",
        )
    console.print(table)


def _instant(option: str, text: str) -> int:
    try:
        return text_us(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: is no ISO 8601 instant, like 2026-06-15T12:00") from error


def _duration(option: str, text: str) -> int:
    try:
        return parse_duration_us(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: {error}") from error
