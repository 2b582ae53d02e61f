"""What a service declares is checked before anything runs."""

from typing import Any

import pytest

from driftline.control.context import Context, deterministic_id
from driftline.control.routes import Declarations, decode_tick
from driftline.runtime.errors import ConfigurationError


async def handle(record: dict[str, Any], context: Context) -> None:
    return


def declared(*inputs: tuple[str, str | None]) -> Declarations:
    found = Declarations(group="p.s")
    for topic, table in inputs:
        found.on(topic, decode_tick, handle, table)
    return found


def test_own_topics_follow_the_inputs_of_their_table() -> None:
    found = declared(("a", "windows"), ("b", "windows"), ("c", None), ("d", "others"))
    found.tick("close", 5, handle, "windows")
    found.tick("beat", 1, handle, None)
    assert found.partitions({"a": 3, "b": 3, "c": 6, "d": 2}) == {
        "p.s.windows-changelog": 3,
        "p.s.others-changelog": 2,
        "p.s.close-ticks": 3,
        "p.s.beat-ticks": 6,
    }


def test_topics_of_one_table_have_equally_many_partitions() -> None:
    with pytest.raises(ConfigurationError, match=r"a \(3\), b \(2\)"):
        declared(("a", "windows"), ("b", "windows")).partitions({"a": 3, "b": 2})


def test_a_table_needs_an_input() -> None:
    found = declared(("a", None))
    found.tick("close", 5, handle, "windows")
    with pytest.raises(ConfigurationError, match="there are none"):
        found.partitions({"a": 3})


def test_one_handler_for_a_topic() -> None:
    with pytest.raises(ConfigurationError, match="already has a handler"):
        declared(("a", None), ("a", None))


@pytest.mark.parametrize("name", ["", "Windows", "a b", "../x"])
def test_names_make_topics(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name"):
        declared(("a", name))


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_period_is_a_time(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="period"):
        Declarations(group="p.s").tick("close", seconds, handle, None)


def test_an_id_stands_for_its_cause_forever() -> None:
    assert deterministic_id("flights.profiles", 0, 17, "drift") == "93ddaf17-e108-578a-8966-b074273879cf"
