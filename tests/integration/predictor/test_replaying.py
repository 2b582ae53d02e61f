"""Requests that a predictor answered are replayed from the real log: bit-equal, with a rival, after tampering."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from click.testing import Result
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from driftline.archive.tables import TOPICS, Archive, summarize
from driftline.cli.replay import replay
from driftline.contracts.project_schemas import outcome_schema, prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import MODEL_EVENTS
from driftline.contracts.wire import frame
from driftline.models.bundle import Bundle, BundleError, load_version
from driftline.models.life_log import LifeCodec
from driftline.models.model_event import Kind, ModelEvent
from driftline.models.outcomes import log_losses
from driftline.models.standing import activate
from driftline.replay.records import TopicRecords
from driftline.replay.selection import Selection
from driftline.runtime.errors import RefusedError
from driftline.runtime.health import Health
from driftline.runtime.ids import new_id
from driftline.serving.log_reading import LogReader
from services.archiver.assembly import run_archiver
from services.archiver.settings import ArchiverSettings
from tests.integration.predictor.conftest import NOW_US, Running, Shop
from tests.integration.predictor.test_tracing import publish
from tests.small_model import write_model

Driftline = Callable[..., Result]


@pytest.fixture
def models(models: Path, tmp_path: Path) -> Path:
    """A folder of bundles of this test's own, with a rival beside the active version."""
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    return folder


@pytest.fixture
def driftline(shop: Shop, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driftline:
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": shop.settings.kafka_bootstrap_servers,
        "SCHEMA_REGISTRY_URL": shop.settings.schema_registry_url,
        "DRIFTLINE_PROJECT": str(shop.settings.project),
        "DRIFTLINE_ENVIRONMENT": shop.settings.environment,
        "DRIFTLINE_MODELS": str(models),
        "DRIFTLINE_ARCHIVE": str(tmp_path / "archive"),
        "DRIFTLINE_STATE": str(shop.settings.state),
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    app = typer.Typer()
    app.command()(replay)
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.fixture
def played(shop: Shop, predictor: Running, payments: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Answers over HTTP and over the topic, a refusal, junk in the log; the log's records by request."""
    publish(shop, payments)
    for number in range(8):
        entities = {"customer": f"c{number}", "merchant": f"m{number % 4}"}
        body = {"entities": entities, "inputs": {"amount": 7.5 * number}, "event_time": NOW_US + number}
        assert predictor.ask(**body).status_code == 200
    assert predictor.ask(entities={}).status_code == 422
    shop.ask_topic(*(shop.request(customer=f"c{number % 8}", amount=float(number)) for number in range(300)))
    found = {key: one for key, (one,) in shop.log(309).items()}
    shop.producer.produce(shop.topics.predictions, b"junk", b"raw")
    assert shop.producer.flush(20) == 0
    return found


def archive_everything(shop: Shop, folder: Path, rows: int) -> None:
    """Run an archiver until it has so many predictions."""
    settings = ArchiverSettings(
        **{name: getattr(shop.settings, name) for name in ("kafka_bootstrap_servers", "schema_registry_url")},
        project=shop.settings.project,
        environment=shop.settings.environment,
        archive=str(folder),
        flush_seconds=0.2,
    )
    where, stop, failures = (
        Archive.at(str(folder), shop.topics.prefix),
        threading.Event(),
        list[BaseException](),
    )

    def run() -> None:
        try:
            run_archiver(settings, shop.project, health=Health(), stop=stop)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and not failures:
            found = [summarize(where, TOPICS, name) for name in ("predictions", "payments")]
            if all(found) and found[0].rows == rows:  # type: ignore[union-attr]
                break
            time.sleep(0.1)
    finally:
        stop.set()
        thread.join()
    assert failures == []


def told(result: Result) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    found = json.loads(result.stdout)
    return found.get("rows", []), found["summary"]


def hour() -> tuple[str, ...]:
    now = datetime.now(UTC)
    return (
        "--from",
        (now - timedelta(hours=1)).isoformat(),
        "--to",
        (now + timedelta(seconds=30)).isoformat(),
    )


def test_a_span_is_bit_equal_then_asked_of_a_rival_then_tampered_with(
    shop: Shop, played: dict[str, dict[str, Any]], driftline: Driftline, models: Path, tmp_path: Path
) -> None:
    result = driftline(*hour(), "--json")
    assert result.exit_code == 1, result.output  # for the record that could not be decoded
    rows, summary = told(result)
    assert (summary["records"], summary["scored"], summary["equal"]) == (309, 308, 308)
    assert summary["not_answered"] == {"refused": 1}
    assert summary["notes"] == ["records that could not be decoded: 1"]
    assert summary["bundles"]["fraud@1"]["held_to"] == "its activation"
    assert {row["request_id"]: row["score"] for row in rows} == {
        key: one["score"] for key, one in played.items()
    }
    assert "not proven" in driftline(*hour()).stdout
    few = tmp_path / "few.parquet"
    driftline(*hour(), "--batch-rows", "7", "--output", str(few))
    assert {row["request_id"]: row["score"] for row in pq.read_table(few).to_pylist()} == {
        key: one["score"] for key, one in played.items()
    }
    assert isinstance(driftline("--from", "2020-01-01", "--to", "2020-01-02").exception, RefusedError)

    write_model(shop.project, models, "2", seed=8)
    activate(models, "fraud", "1")
    rival = driftline(*hour(), "--model", "fraud@2", "--json")
    assert rival.exit_code == 0, rival.output
    rows, summary = told(rival)
    assert summary["scored"] == 308 and summary["equal"] < 308
    changed = [
        row for row in rows if row["result"] != "unscored" and row["decision"] != row["logged_decision"]
    ]
    assert summary["decisions_changed"] == len(changed)
    assert summary["max_difference"] == max(abs(row["difference"] or 0) for row in rows) > 0

    model = models / "fraud" / "1" / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    damaged = driftline(*hour(), "--json")
    assert damaged.exit_code == 1
    summary = told(damaged)[1]
    assert (summary["scored"], summary["unscored"], summary["proven"]) == (0, 308, False)
    (reason,) = summary["reasons"]
    assert "the file was changed" in reason and "Put the version's folder back" in reason
    assert driftline(*hour(), "--model", "fraud@2").exit_code == 0
    assert isinstance(driftline(*hour(), "--model", "fraud@1").exception, BundleError)


def test_one_request_and_what_became_of_it(
    shop: Shop, played: dict[str, dict[str, Any]], driftline: Driftline, models: Path
) -> None:
    answered = [one for one in played.values() if one["status"] == "ANSWERED"]
    _publish_outcomes(shop, answered[:40])
    _, summary = told(driftline(*hour(), "--json"))
    losses = log_losses(np.ones(40), np.array([one["score"] for one in answered[:40]]))
    assert summary["labelled"] == 40
    assert summary["log_loss_logged"] == summary["log_loss_replayed"] == pytest.approx(losses.mean())

    one = answered[5]
    rows, summary = told(driftline("--request", one["request_id"].upper(), "--json"))
    assert [(row["request_id"], row["result"], row["score"]) for row in rows] == [
        (one["request_id"], "equal", one["score"])
    ]
    assert (summary["labelled"], summary["log_loss_logged"]) == (1, pytest.approx(losses[5]))
    assert isinstance(driftline("--request", new_id()).exception, RefusedError)

    _register(shop, load_version(models, "fraud", "1"))
    assert told(driftline(*hour(), "--json"))[1]["bundles"]["fraud@1"]["held_to"] == "its registration"
    manifest = models / "fraud" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("shop@example.com", "someone@example.com"))
    activate(models, "fraud", "1")  # now bundle and activation agree with each other
    replaced = driftline(*hour(), "--json")
    assert replaced.exit_code == 1
    assert told(replaced)[1]["unscored"] == 308


def test_what_the_topic_lost_comes_from_the_archive_and_features_can_be_computed_again(
    shop: Shop, played: dict[str, dict[str, Any]], driftline: Driftline, tmp_path: Path
) -> None:
    archive_everything(shop, tmp_path / "archive", 309)
    archived = driftline(*hour(), "--source", "archive", "--json")
    assert archived.exit_code == 0, archived.output
    rows, summary = told(archived)
    assert (summary["records"], summary["equal"]) == (309, 308)

    again = told(driftline(*hour(), "--features", "recomputed", "--json"))[1]
    assert again["features"]["values"] == again["features"]["equal"] == 308 * 10
    assert again["equal"] == 308

    topic = shop.topics.predictions
    admin = AdminClient({"bootstrap.servers": shop.settings.kafka_bootstrap_servers})
    for future in admin.delete_records([TopicPartition(topic, 0, 60), TopicPartition(topic, 1, 50)]).values():
        future.result(20)
    lost = told(driftline(*hour(), "--source", "topic", "--json"))[1]
    assert lost["records"] < 309
    assert len([note for note in lost["notes"] if "in the topic no longer" in note]) == 2
    whole_rows, whole = told(driftline(*hour(), "--json"))
    assert (whole["records"], whole["equal"]) == (309, 308)
    assert not any("no longer" in note for note in whole["notes"])

    def by_place(found: list[dict[str, Any]]) -> list[tuple[int, int, str, float | None]]:
        return sorted(
            (row["partition"], row["offset"], row["request_id"], row["score"] or 0.0) for row in found
        )

    assert by_place(whole_rows) == by_place(rows)
    gone = min(rows, key=lambda row: row["offset"])
    found = told(driftline("--request", gone["request_id"], "--json"))
    assert [row["offset"] for row in found[0]] == [gone["offset"]]


def test_records_keep_the_columns_that_they_were_written_with(shop: Shop) -> None:
    """A project that dropped a view can still replay the versions that read it."""
    now, schema, topic = shop.settings, prediction_schema(shop.project), shop.topics.predictions
    gone = {"name": "dropped__mean_1h", "type": ["null", "double"], "default": None}
    wide = {**schema, "fields": [*schema["fields"], gone]}
    record = {
        **shop.request(predicted_at=NOW_US, duration_us=1, channel="HTTP", status="ANSWERED", score=0.1),
        **{"feature_views": ["dropped@1"], "decision": "accept", "model_version": "0"},
    }
    with SchemaRegistry(now.schema_registry_url) as registry, LogReader(now.kafka_config()) as reader:
        older = registry.register(shop.topics.subject(topic), wide)
        for schema_id, written, values in (
            (shop.ids[topic], schema, {}),
            (older, wide, {"dropped__mean_1h": 0.1 + 0.2}),
            (2**31 - 1, schema, {}),
        ):
            value = frame(schema_id, RecordCodec(written).encode({**record, **values}))
            shop.producer.produce(topic, value, record["request_id"])
        assert shop.producer.flush(20) == 0
        records = TopicRecords(reader, shop.topics, registry, lambda _: None)
        for selection in (Selection(), Selection(request_id=record["request_id"])):
            found = [row for table in records.read("predictions", selection) for row in table.to_pylist()]
            assert [row.get("dropped__mean_1h", "absent") for row in found] == ["absent", 0.1 + 0.2]
        assert records.unreadable == 2


def _register(shop: Shop, bundle: Bundle) -> None:
    """Put the fact of a version's registration on the topic, as the trainer would."""
    topic = shop.topics.stream(MODEL_EVENTS)
    fact = ModelEvent(
        event_id=new_id(),
        model=bundle.manifest.model,
        kind=Kind.REGISTERED,
        effective_us=NOW_US,
        reason="a test",
        by="test",
        at_us=NOW_US,
        version=bundle.manifest.version,
        evidence=json.dumps({"sha256": bundle.sha256}),
    )
    with SchemaRegistry(shop.settings.schema_registry_url) as registry:
        shop.producer.produce(topic, LifeCodec(registry, shop.ids[topic]).encode(fact), fact.model)
    assert shop.producer.flush(20) == 0


def _publish_outcomes(shop: Shop, records: list[dict[str, Any]]) -> None:
    """Put an outcome for each prediction on the topic, as the joiner would."""
    codec, topic = RecordCodec(outcome_schema(shop.project)), shop.topics.outcomes
    fields = {one["name"] for one in codec.schema["fields"]}
    config = {"bootstrap.servers": shop.settings.kafka_bootstrap_servers, "partitioner": "murmur2_random"}
    producer = Producer(config)
    for record in records:
        outcome = {
            **{name: value for name, value in record.items() if name in fields},
            **{"kind": "JOINED", "label": 1.0, "previous_label": None, "label_id": new_id()},
            **{
                "label_known_at": record["event_time"],
                "log_loss": None,
                "squared_error": None,
                "value": None,
            },
        }
        producer.produce(topic, frame(shop.ids[topic], codec.encode(outcome)), record["request_id"])
    assert producer.flush(20) == 0
