"""Quix Streams over the readings: count, sum and mean per sensor in windows of half an hour, kept in its RocksDB.

Run by the Python of an environment with Quix: quix_peer.py BOOTSTRAP TOPIC ROWS SCHEMA_FILE FOLDER
Prints {"rate": events a second, "totals": {sensor: [count, sum, mean x count]}}, each summed over the windows. The clock
runs from the first event to the one after the last, when everything before it has been committed.
"""

import io
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import fastavro
from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.dataframe.windows import Count, Mean, Sum  # type: ignore[import-not-found]
from quixstreams.models import Deserializer  # type: ignore[import-not-found]

HEADER = 5
COMMIT_EVERY = 10_000
WINDOW_MS = 30 * 60_000
LATE_MS = 10 * 60_000


class Readings(Deserializer):  # type: ignore[misc]
    """Decodes readings; their times stay numbers."""

    def __init__(self, schema_file: Path) -> None:
        super().__init__()
        plain = json.loads(schema_file.read_text(), object_hook=_without_logical_type)
        self._schema = fastavro.parse_schema(plain)

    def __call__(self, value: bytes, ctx: Any) -> Any:
        """Return a reading as a dictionary."""
        return fastavro.schemaless_reader(io.BytesIO(value[HEADER:]), self._schema)


def main() -> None:
    """Print the rate and the totals after ROWS events; go on until ended."""
    bootstrap, topic_name, rows_text, schema_file, folder = sys.argv[1:6]
    rows = int(rows_text)
    app = Application(
        broker_address=bootstrap,
        consumer_group=f"bench-{Path(folder).name}",
        auto_offset_reset="earliest",
        state_dir=folder,
        processing_guarantee="exactly-once",
        commit_every=COMMIT_EVERY,
        commit_interval=3600,
        loglevel="ERROR",
    )
    topic = app.topic(
        topic_name,
        key_deserializer="str",
        value_deserializer=Readings(Path(schema_file)),
        timestamp_extractor=lambda value, *_others: value["read_at"] // 1_000,
    )
    windows: dict[tuple[str, int], dict[str, float]] = {}
    seen, begun = 0, 0.0

    def keep(window: dict[str, Any], key: str, *_others: Any) -> None:
        nonlocal seen, begun
        begun = begun or time.perf_counter()
        if seen == rows:
            rate = rows / (time.perf_counter() - begun)
            print(json.dumps({"rate": rate, "totals": _totals(windows)}), flush=True)
        seen += 1
        windows[key, window["start"]] = window

    events = app.dataframe(topic)
    definition = events.tumbling_window(WINDOW_MS, grace_ms=LATE_MS)
    definition.agg(count=Count(), sum=Sum("value"), mean=Mean("value")).current().update(keep, metadata=True)
    app.run()


def _totals(windows: dict[tuple[str, int], dict[str, float]]) -> dict[str, list[float]]:
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for (sensor, _start), window in windows.items():
        total = totals[sensor]
        total[0] += window["count"]
        total[1] += window["sum"]
        total[2] += window["mean"] * window["count"]
    return totals


def _without_logical_type(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != "logicalType"}


if __name__ == "__main__":
    main()
