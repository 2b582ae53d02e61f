"""Model events to bytes and back; a kind that a newer driftline writes is a bad message, not a crash."""

import pytest

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.wire import frame
from driftline.models.life_log import LifeCodec
from driftline.models.model_event import Kind
from driftline.runtime.errors import BadMessageError
from tests.unit.models_life.test_lifecycle import event

NEWER = platform_schema("model_event")
(KIND,) = [field["type"] for field in NEWER["fields"] if field["name"] == "kind"]


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> LifeCodec:
    monkeypatch.setitem(KIND, "symbols", [*KIND["symbols"], "KNIGHTED"])
    registry = SchemaRegistry("http://127.0.0.1:1")
    monkeypatch.setattr(registry, "schema", lambda _: NEWER)
    return LifeCodec(registry, 1)


@pytest.mark.parametrize("kind", [Kind.PROMOTED, Kind.FAILING])
def test_what_a_newer_schema_holds_is_read(codec: LifeCodec, kind: Kind) -> None:
    one = event(kind)
    assert codec.decode(frame(1, RecordCodec(NEWER).encode(one.record()))) == one
    assert codec.decode(codec.encode(one)).event_id == one.event_id


def test_a_kind_that_is_not_known_yet_is_a_bad_message(codec: LifeCodec) -> None:
    value = frame(1, RecordCodec(NEWER).encode({**event(Kind.PROMOTED).record(), "kind": "KNIGHTED"}))
    with pytest.raises(BadMessageError, match="KNIGHTED"):
        codec.decode(value)
