"""The real registry: schemas go in once, come out by id, and an incompatible one is told by its field."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from driftline.contracts import registry as registry_module
from driftline.contracts.batch_codec import BatchDecoder, BatchEncoder
from driftline.contracts.registry import (
    IncompatibleSchemaError,
    SchemaRegistry,
    UnknownSchemaError,
    project_topic_schemas,
)
from driftline.contracts.topics import Topics
from driftline.project import Project, load_project
from driftline.runtime.errors import ConfigurationError, UnavailableError

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
NUMBER = {"name": "number", "type": "long"}

BATCH = pa.schema([pa.field("number", pa.int64(), nullable=False)])


def schema(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "Event", "namespace": "n", "fields": [NUMBER, *fields]}


@pytest.fixture
def registry(registry_url: str) -> Iterator[SchemaRegistry]:
    with SchemaRegistry(registry_url) as opened:
        yield opened


@pytest.fixture
def other(registry_url: str) -> Iterator[SchemaRegistry]:
    """Another process's view of the registry, with nothing remembered."""
    with SchemaRegistry(registry_url) as opened:
        yield opened


@pytest.fixture
def flights(unique: str) -> Project:
    return replace(load_project(FLIGHTS), name=unique)


def test_a_schema_is_registered_once_and_found_by_its_id(
    registry: SchemaRegistry, other: SchemaRegistry, registry_url: str, unique: str
) -> None:
    first = registry.register(f"{unique}-value", schema())
    assert other.register(f"{unique}-value", schema()) == first
    assert other.schema_id(f"{unique}-value", schema()) == first
    assert other.schema(first) == schema()
    level = httpx.get(f"{registry_url}/config/{unique}-value").json()
    assert level["compatibilityLevel"] == "BACKWARD"


def test_a_new_field_with_a_default_is_a_new_version(registry: SchemaRegistry, unique: str) -> None:
    first = registry.register(f"{unique}-value", schema())
    wider = schema({"name": "note", "type": ["null", "string"], "default": None})
    registry.check(f"{unique}-value", wider)
    second = registry.register(f"{unique}-value", wider)
    assert second != first
    assert registry.latest(f"{unique}-value") == wider
    old = BatchEncoder(schema(), first).encode(pa.RecordBatch.from_pylist([{"number": 7}], BATCH))
    decoded = BatchDecoder(wider, registry.schema).decode(old)
    assert decoded.table.to_pylist() == [{"number": 7, "note": None}]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (schema({"name": "note", "type": "string"}), "field 'note' is new and has no default"),
        (
            {**schema(), "fields": [{"name": "number", "type": "string"}]},
            "field 'number' was long and became string",
        ),
    ],
)
def test_an_incompatible_schema_names_the_field_and_leaves_nothing(
    registry: SchemaRegistry, unique: str, changed: dict[str, Any], reason: str
) -> None:
    registry.register(f"{unique}-value", schema())
    for attempt in (registry.check, registry.register):
        with pytest.raises(IncompatibleSchemaError) as raised:
            attempt(f"{unique}-value", changed)
        assert reason in str(raised.value)
        assert f"{unique}-value" in str(raised.value)
    assert registry.latest(f"{unique}-value") == schema()


def test_the_registrys_own_verdict_counts(
    registry: SchemaRegistry, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(f"{unique}-value", schema())
    monkeypatch.setattr(registry_module, "explain_incompatibility", lambda **_: None)
    with pytest.raises(IncompatibleSchemaError, match="the registry's own check"):
        registry.register(f"{unique}-value", schema({"name": "note", "type": "string"}))


def test_an_unknown_id_is_a_bad_message_and_not_asked_for_again(
    registry: SchemaRegistry, unique: str
) -> None:
    for _ in range(2):
        with pytest.raises(UnknownSchemaError, match="no Avro schema with id 2000000000"):
            registry.schema(2_000_000_000)
    with pytest.raises(ConfigurationError, match="not registered"):
        registry.schema_id(f"{unique}-value", schema())


def test_a_schema_that_is_none_is_a_matter_of_configuration(registry: SchemaRegistry, unique: str) -> None:
    with pytest.raises(ConfigurationError):
        registry.register(
            f"{unique}-value", {"type": "record", "name": "Event", "fields": [{"name": "a", "type": "sting"}]}
        )


def test_a_silent_registry_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_FIRST_WAIT", 0.001)
    with (
        SchemaRegistry("http://127.0.0.1:9") as silent,
        pytest.raises(UnavailableError, match="does not answer"),
    ):
        silent.schema(1)


def test_a_project_registers_all_or_nothing(
    registry: SchemaRegistry, other: SchemaRegistry, flights: Project
) -> None:
    topics = Topics(flights.name)
    arrivals = flights.event_types["arrivals"]
    wrong = {
        **arrivals.schema,
        "fields": [*arrivals.schema["fields"], {"name": "gate", "type": "string", "doc": "Gate."}],
    }
    registry.register(topics.subject(topics.events("arrivals")), arrivals.schema)
    event_types = {**flights.event_types, "arrivals": replace(arrivals, schema=wrong)}
    with pytest.raises(IncompatibleSchemaError, match="arrivals-value: field 'gate' is new"):
        registry.register_project(replace(flights, event_types=event_types), topics)
    assert registry.latest(topics.subject(topics.events("weather"))) is None
    ids = registry.register_project(flights, topics)
    assert (
        set(ids)
        == set(project_topic_schemas(flights, topics))
        == set(topics.all_of(flights)) - {topics.dead_letters}
    )
    assert other.register_project(flights, topics) == ids
