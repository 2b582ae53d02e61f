"""The summary of a play, as a person reads it."""

from rich.console import Console
from rich.table import Table

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
    for problem in summary.problems:
        console.print(f"does not reconcile: {problem}", style="bold red", markup=False)
    if not summary.problems:
        console.print("Everything reconciles, to the last event and the last bit.", style="green")


def _pair(middle: float | None, high: float | None) -> str:
    return "not measured" if middle is None or high is None else f"{middle:.1f} / {high:.1f} ms"
