"""`driftline predict --file` on the real servers: one record for each row, killed or not."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftline.batch.prediction_log import KafkaPredictionLog
from driftline.runtime.errors import RefusedError
from tests.integration.predictor.conftest import NOW_US, Shop

ROWS = 6_000
NOW = datetime.fromtimestamp(NOW_US / 1e6, UTC).isoformat()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "payments.parquet"
    rows = [{"customer": f"c{n % 9}", "merchant": f"m{n % 5}", "amount": float(n)} for n in range(ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def start(shop: Shop, file: Path, *options: str) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": shop.settings.kafka_bootstrap_servers,
        "SCHEMA_REGISTRY_URL": shop.settings.schema_registry_url,
        "REDIS_URL": shop.settings.redis_url,
        "DRIFTLINE_PROJECT": str(shop.settings.project),
        "DRIFTLINE_ENVIRONMENT": shop.settings.environment,
        "DRIFTLINE_MODELS": str(shop.settings.models),
        "DRIFTLINE_STATE": str(shop.settings.state),
    }
    command = [sys.executable, "-P", "-m", "driftline.cli.main", "predict", "fraud", "--file", str(file)]
    return subprocess.Popen(
        [*command, "--event-time", NOW, "--json", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    told: dict[str, Any] = json.loads(out)
    return told


def test_killed_and_run_again_every_row_is_logged_once(
    shop: Shop, payments: list[dict[str, Any]], file: Path, tmp_path: Path
) -> None:
    shop.feed(payments)
    target = tmp_path / "scored.parquet"
    options = ("--out", str(target), "--batch-rows", "50")
    kills = 0
    for wanted in (1, 30):  # in the first transactions, and in the middle
        process = start(shop, file, *options)
        while process.poll() is None and len(list(tmp_path.glob(".*.parts/*.parquet"))) < wanted:
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills == 2
    told = finish(start(shop, file, *options))
    assert told["rows"] + told["rows_of_earlier_runs"] == ROWS and told["rows_of_earlier_runs"] > 0
    logged = shop.log(ROWS, 60)
    assert {len(records) for records in logged.values()} == {1}
    records = {request_id: records[0] for request_id, records in logged.items()}
    assert sorted(record["amount"] for record in records.values()) == [float(n) for n in range(ROWS)]
    assert {(record["channel"], record["status"]) for record in records.values()} == {("BATCH", "ANSWERED")}
    scored = pq.read_table(target).to_pylist()
    assert [row["amount"] for row in scored] == [float(n) for n in range(ROWS)]
    assert all(row["score"] == records[row["request_id"]]["score"] for row in scored)
    again = finish(start(shop, file, *options))
    assert (again["rows"], again["rows_of_earlier_runs"]) == (0, ROWS)
    assert len(shop.log(ROWS, 60)) == ROWS
    other = finish(start(shop, file, "--run", "second"))
    assert other["rows"] == ROWS
    assert len(shop.log(2 * ROWS, 60)) == 2 * ROWS


def test_a_second_process_of_a_job_takes_it_over(shop: Shop) -> None:
    kafka = shop.settings.kafka_config()
    first, second = (KafkaPredictionLog(kafka, shop.topics, job="j") for _ in range(2))
    try:
        assert first.start() == 0
        first.write(["a"], [b"1"], through=10)
        assert second.start() == 10
        with pytest.raises(RefusedError, match="another run of this file"):
            first.write(["b"], [b"2"], through=20)
        second.write(["c"], [b"3"], through=20)
        assert second.start() == 20
        logged = shop.read(shop.topics.predictions, 2, 2)
        assert sorted(message.key() or b"" for message in logged) == [b"a", b"c"]
    finally:
        first.close()
        second.close()
