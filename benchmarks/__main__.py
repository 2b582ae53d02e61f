"""`make bench`: driftline beside its peers, in one interleaved run; ratios with medians and ranges."""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    data_plane,
    drift_evaluation,
    feast_path,
    freshness,
    http_path,
    monitoring_path,
    profile_cost,
    quix_path,
    row_by_row,
    scoring_path,
    store_path,
    training_set_path,
)
from benchmarks.comparison import Comparison, Result
from benchmarks.data_plane import Bench
from benchmarks.peer_environment import PeerMissingError
from driftline.embedded import EmbeddedStack

REPORT = Path(".driftline/bench/latest.json")


def main() -> None:
    """Run the comparisons that are named, all unless said, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; all unless said")
    parser.add_argument("--runs", type=int, default=7, help="measured repeats of each side")
    parser.add_argument("--rows", type=int, default=300_000, help="events in the topic")
    arguments = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder, ExitStack() as closing:
        ends: list[Callable[[], None]] = []
        closing.callback(lambda: [end() for end in ends])
        bench = Bench(folder=Path(folder), rows=arguments.rows, environments=REPORT.parent)
        alone = chosen(
            [
                *profile_cost.comparisons(),
                *drift_evaluation.comparisons(REPORT.parent, ends),
                *training_set_path.comparisons(),
            ],
            arguments.names,
        )
        served = chosen(
            [
                *data_plane.comparisons(bench),
                *quix_path.comparisons(bench),
                *row_by_row.comparisons(bench),
                *monitoring_path.comparisons(bench),
                *scoring_path.comparisons(bench),
                *http_path.comparisons(bench),
                *freshness.comparisons(bench),
                *store_path.comparisons(bench),
                *feast_path.comparisons(bench),
            ],
            arguments.names,
        )
        results = measured(alone, arguments.runs, console)
        if served:
            stack = closing.enter_context(EmbeddedStack(Path(folder)))
            closing.callback(bench.close)
            data_plane.prepare(bench, stack.environment, console)
            results += measured(served, arguments.runs, console)
    report(results, console)


def chosen(comparisons: Sequence[Comparison], names: Sequence[str]) -> list[Comparison]:
    """Return the comparisons that are named by a part of their names; all where nothing is named."""
    return [one for one in comparisons if not names or any(name in one.name for name in names)]


def measured(comparisons: Iterable[Comparison], runs: int, console: Console) -> list[Result]:
    """Run the comparisons; those whose peer cannot be installed here are told and left out."""
    results = []
    for one in comparisons:
        try:
            results.append(one.run(runs, console))
        except PeerMissingError as error:
            console.print(f"  {one.name}: left out: {error}", style="yellow")
    return results


def report(results: Iterable[Result], console: Console) -> None:
    """Print the lines and write them to the report."""
    lines = list(results)
    table = Table(title="driftline beside its peers (median, range)")
    for heading in ("what", "ours", "theirs", "unit", "ratio", "aim", ""):
        table.add_column(heading, justify="left" if heading in {"what", "unit", ""} else "right")
    for one in lines:
        aim = "" if one.aim is None else f"{'≥' if one.better == 'higher' else '≤'} {one.aim:g}"
        reached = {True: "reached", False: "missed", None: ""}[one.reached]
        table.add_row(
            one.name,
            f"{one.ours:,.4g} ({one.ours_range[0]:,.4g}–{one.ours_range[1]:,.4g})",
            f"{one.theirs:,.4g} ({one.theirs_range[0]:,.4g}–{one.theirs_range[1]:,.4g})",
            one.unit,
            f"{one.ratio:.2f}",
            aim,
            reached,
        )
    console.print(table)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps([one.as_json() for one in lines], indent=1) + "\n")
    console.print(f"written to {REPORT}")


if __name__ == "__main__":
    main()
