"""A Faust agent with a table over the same topic: decode, count and sum per sensor. Prints its rate as JSON.

Run as a process of its own: python -m benchmarks.faust_peer BOOTSTRAP TOPIC ROWS SCHEMA_FILE DATA_FOLDER
"""

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import fastavro
import faust

HEADER = 5


def main() -> None:
    """Consume ROWS events and print {"rate": events a second}."""
    bootstrap, topic_name, rows_text, schema_file, folder = sys.argv[1:6]
    rows = int(rows_text)
    schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text()))
    app = faust.App(
        f"bench-faust-{Path(folder).name}",
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
    topic = app.topic(topic_name, value_serializer="raw", key_serializer="raw", partitions=1)
    table = app.Table("sums", default=lambda: [0, 0.0], partitions=1)
    state: dict[str, Any] = {"seen": 0, "begun": 0.0}

    @app.agent(topic)
    async def add(stream: Any) -> None:
        async for value in stream:
            state["begun"] = state["begun"] or time.perf_counter()
            event = fastavro.schemaless_reader(io.BytesIO(value[HEADER:]), schema)
            number, total = table[event["sensor"]]
            table[event["sensor"]] = [number + 1, total + event["value"]]
            state["seen"] += 1
            if state["seen"] == rows:
                print(json.dumps({"rate": rows / (time.perf_counter() - state["begun"])}), flush=True)

    worker = faust.Worker(app, loglevel="error", redirect_stdouts=False)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
