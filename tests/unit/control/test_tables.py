"""A table read back from its changelog is the table that was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.control.tables import PartitionState, TableView

keys = st.text("abc", min_size=1, max_size=2)
states = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
steps = st.lists(st.dictionaries(keys, st.none() | states, max_size=4), max_size=8)


@given(steps, st.data())
def test_replay_is_what_was_applied(changes: list[dict[str, object]], data: st.DataObject) -> None:
    written, expected = PartitionState(), {}
    log = []
    for offset, change in enumerate(changes):
        view = TableView(written)
        for key, state in change.items():
            if state is None:
                view.delete(key)
                expected.pop(key, None)
            else:
                view.put(key, state)
                expected[key] = state
        assert dict(view.items()) == expected
        log.append(written.changes("t", offset, view.staged))
        written.apply("t", offset, view.staged)
    read = PartitionState()
    for batch in log:
        for key, value in batch:
            read.replay(key, value)
    assert dict(TableView(read).items()) == expected
    assert read.watermarks == written.watermarks
    assert read.values == written.values


def test_what_is_got_is_a_copy() -> None:
    state = PartitionState()
    view = TableView(state)
    view.put("a", {"list": [1]})
    view.get("a")["list"].append(2)
    assert view.get("a") == {"list": [1]}


@pytest.mark.parametrize(("key", "state"), [("", 1), ("a", None), ("\x00t", 1)])
def test_keys_and_states_that_cannot_be(key: str, state: object) -> None:
    with pytest.raises(ValueError, match="takes no empty key"):
        TableView(PartitionState()).put(key, state)


def test_a_state_is_json() -> None:
    with pytest.raises(TypeError):
        TableView(PartitionState()).put("a", {1, 2})


def test_delete_and_put_again_in_one_step() -> None:
    view = TableView(PartitionState())
    view.put("a", 1)
    view.delete("a")
    assert view.get("a", "gone") == "gone"
    view.put("a", 2)
    assert view.items() == [("a", 2)]
