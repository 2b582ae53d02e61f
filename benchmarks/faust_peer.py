"""A Faust agent with a table over the same topic: decode, count and sum per sensor. Prints its rate as JSON.

Run as a process of its own: python -m benchmarks.faust_peer BOOTSTRAP TOPIC ROWS SCHEMA_FILE DATA_FOLDER
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import fastavro

from benchmarks.faust_worker import counter, make_app, run

HEADER = 5


def main() -> None:
    """Consume ROWS events and print {"rate": events a second}."""
    bootstrap, topic_name, rows_text, schema_file, folder = sys.argv[1:6]
    rows = int(rows_text)
    schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text()))
    app = make_app("bench-faust", bootstrap, folder)
    count = counter(rows)
    topic = app.topic(topic_name, value_serializer="raw", key_serializer="raw", partitions=1)
    table = app.Table("sums", default=lambda: [0, 0.0], partitions=1)

    @app.agent(topic)
    async def add(stream: Any) -> None:
        async for value in stream:
            event = fastavro.schemaless_reader(io.BytesIO(value[HEADER:]), schema)
            number, total = table[event["sensor"]]
            table[event["sensor"]] = [number + 1, total + event["value"]]
            count()

    run(app)


if __name__ == "__main__":
    main()
