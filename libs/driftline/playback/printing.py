"""The summary of a play, as a person reads it."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from driftline.playback.season import Season
from driftline.playback.summary import Summary

_NAMES = {"model": "model", "constant": "constant", "moving_average": "24-hour moving average"}


def print_summary(console: Console, summary: Summary) -> None:
    """Print the counts, the times and the quality, then what does not reconcile."""
    counts, parity, seconds = summary.counts, summary.parity, summary.seconds
    table = Table(title="What happened", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "events acknowledged": f"{counts.acknowledged:,}",
        "  applied": f"{counts.applied:,}",
        "  duplicates": f"{counts.duplicates:,}",
        "  dead letters": f"{counts.dead_letters:,}",
        "prediction requests": f"{counts.requests:,}",
        "predictions in the log": f"{counts.predictions:,}",
        "  of them over HTTP": f"{summary.http.count:,}",
        "HTTP answer, median / 99th percentile": _pair(summary.http.p50_ms, summary.http.p99_ms),
        "event to readable feature": _pair(summary.freshness.p50_ms, summary.freshness.p99_ms),
        "served values equal to recomputed ones": f"{parity.equal:,} of {parity.compared:,}",
        "seconds to install / start / train / play": (
            f"{seconds.install:.0f} / {seconds.start:.0f} / {seconds.train:.0f} / {seconds.play:.0f}"
        ),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    quality = Table(title="How good the predictions were")
    quality.add_column("")
    for heading in ("area under the curve", "log loss", "Brier"):
        quality.add_column(heading, justify="right")
    for name, found in summary.quality.items():
        quality.add_row(
            _NAMES.get(name, name), f"{found.auc:.3f}", f"{found.log_loss:.4f}", f"{found.brier:.4f}"
        )
    console.print(quality)
    if summary.season is not None:
        print_season(console, summary.season)
    for problem in summary.problems:
        console.print(f"does not reconcile: {problem}", style="bold red", markup=False)
    if not summary.problems:
        console.print("Everything reconciles, to the last event and the last bit.", style="green")


def print_season(console: Console, season: Season) -> None:
    """Print what the loop did while months were played."""
    table = Table(title=f"What the loop did from {season.start} to {season.end}", show_header=False)
    table.add_column()
    table.add_column()
    table.add_row("predictions", f"{season.predictions:,}")
    table.add_row("outcomes", _counts(season.outcomes))
    table.add_row("drift signals", _counts(season.signals))
    table.add_row("alerts", _counts(season.alerts))
    for one in season.retrains:
        table.add_row(f"retrain ({one['cause'].lower()})", f"{one['reason']}: {one['came_to'].lower()}")
    for one in season.models:
        table.add_row(f"model {one['kind'].lower()}", f"{one['version'] or ''} {one['reason']}")
    console.print(table)
    rivals = Table(title="Each version beside the first one, on the same outcomes")
    for heading in ("version", "outcomes", "log loss", "first version's", "value", "first version's"):
        rivals.add_column(heading, justify="left" if heading == "version" else "right")
    for one in season.versions:
        first = one["first_version"]
        rivals.add_row(
            one["version"],
            f"{one['outcomes']:,}",
            f"{one['log_loss']:.4f}",
            f"{first['log_loss']:.4f}",
            f"{one['value']:,.0f}",
            f"{first['value']:,.0f}",
        )
    console.print(rivals)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name.lower()}" for name, number in counts.items()) or "none"


def _pair(middle: float | None, high: float | None) -> str:
    return "not measured" if middle is None or high is None else f"{middle:.1f} / {high:.1f} ms"
