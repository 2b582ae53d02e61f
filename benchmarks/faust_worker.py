"""What the Faust peers share: a worker that reads a topic from its beginning and tells how fast it was."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import faust


def make_app(name: str, bootstrap: str, folder: str) -> faust.App:
    """Return an application of one group per folder, with its tables in memory; it commits every half second."""
    return faust.App(
        f"{name}-{Path(folder).name}",
        broker=f"kafka://{bootstrap}",
        datadir=folder,
        store="memory://",
        web_enabled=False,
        topic_partitions=1,
        topic_replication_factor=1,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=0.5,
    )


def counter(rows: int) -> Callable[[], None]:
    """Return what is called after each row, and prints {"rate": rows a second} after the last."""
    times: list[float] = []

    def count() -> None:
        times.append(time.perf_counter())
        if len(times) == rows:
            print(json.dumps({"rate": (rows - 1) / (times[-1] - times[0])}), flush=True)

    return count


def run(app: faust.App) -> None:
    """Run the worker until it is killed."""
    faust.Worker(app, loglevel="error", redirect_stdouts=False).execute_from_commandline()
