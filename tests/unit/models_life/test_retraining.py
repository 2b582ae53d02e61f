"""One cause makes one request; time is the events'."""

import itertools
import json
import math
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.topics import schemas_folder
from driftline.models.retraining import (
    Cause,
    RetrainRequest,
    Signal,
    TriggerState,
    Window,
    on_request,
    on_signal,
    on_window,
    request,
)
from driftline.project import AskingLevel, RetrainRule
from driftline.runtime.durations import DAY_US

RULE = RetrainRule(cooldown_us=14 * DAY_US)


def signal(day: float, name: str = "s", level: str = "RETRAIN", check: str = "psi") -> Signal:
    return Signal(
        signal_id=f"{name}{day}",
        model="lateness",
        level=level,
        check=check,
        window_end_us=int(day * DAY_US),
        explanation="log loss rose",
    )


def ask(
    state: TriggerState, one: Signal, rule: RetrainRule = RULE
) -> tuple[TriggerState, RetrainRequest | None]:
    return on_signal(state, one, rule, by="retrain_trigger", at_us=5)


def close(
    state: TriggerState, day: int, rule: RetrainRule, rows: int = 100, loss: float = 0.4, value: float = 1.0
) -> tuple[TriggerState, RetrainRequest | None]:
    window = Window(model="lateness", end_us=day * DAY_US, rows=rows, log_loss=loss, value=value)
    return on_window(state, window, rule, by="retrain_trigger", at_us=5)


def test_a_retrain_signal_makes_a_request_on_what_its_window_knew() -> None:
    state, made = ask(TriggerState(), signal(30))
    assert made is not None
    assert (made.cause, made.cause_id, made.data_until_us) == (Cause.DRIFT, "s30", 30 * DAY_US)
    assert made.reason == "log loss rose"
    assert state.last_us == 30 * DAY_US


def test_causes_are_told_apart() -> None:
    for check, cause in [("psi", Cause.DRIFT), ("log_loss", Cause.ACCURACY), ("value", Cause.VALUE)]:
        assert ask(TriggerState(), signal(1, check=check))[1].cause is cause  # type: ignore[union-attr]


def test_lesser_signals_ask_for_nothing() -> None:
    for level in ("WARNING", "ALERT", "RESOLVED"):
        assert ask(TriggerState(), signal(1, level=level)) == (TriggerState(), None)


@pytest.mark.parametrize(
    ("asking", "enough"),
    [
        (AskingLevel.WARNING, {"WARNING", "ALERT", "RETRAIN"}),
        (AskingLevel.ALERT, {"ALERT", "RETRAIN"}),
        (AskingLevel.RETRAIN, {"RETRAIN"}),
        (AskingLevel.NEVER, set()),
    ],
)
def test_the_rule_says_which_signals_ask(asking: AskingLevel, enough: set[str]) -> None:
    rule = replace(RULE, drift=asking)
    levels = {"WARNING", "ALERT", "RETRAIN", "RESOLVED", "NEVER"}
    assert {level for level in levels if ask(TriggerState(), signal(1, level=level), rule)[1]} == enough


def test_nothing_is_asked_for_again_before_the_cooldown_is_over() -> None:
    state, _ = ask(TriggerState(), signal(30))
    for day in (30, 31, 43.9, 12):
        assert ask(state, signal(day, "other")) == (state, None)
    assert ask(state, signal(44))[1] is not None


def test_a_persons_request_starts_the_cooldown_too() -> None:
    by_hand = request(Cause.PERSON, "p1", "lateness", "", 30 * DAY_US, by="ann", at_us=1)
    state = on_request(TriggerState(labelled=7), by_hand)
    assert state.labelled == 0
    assert ask(state, signal(40))[1] is None
    assert on_request(state, replace(by_hand, data_until_us=3)) == state


def test_the_schedule_asks_once_in_each_slot() -> None:
    rule = replace(RULE, every_us=30 * DAY_US)
    state, asked = TriggerState(), []
    for day in range(20, 125):
        state, made = close(state, day, rule)
        asked += [made] if made else []
    assert [made.data_until_us // DAY_US for made in asked] == [30, 60, 90, 120]
    assert {made.cause for made in asked} == {Cause.SCHEDULE}
    assert len({made.request_id for made in asked}) == 4


def test_a_target_is_missed_over_several_windows_not_in_one() -> None:
    rule = replace(RULE, target_log_loss=0.5, target_windows=3)
    state, asked = TriggerState(), []
    for day, loss in enumerate([0.4, 0.9, 0.4, 0.4, 0.4, 0.6, 0.6, 0.7]):
        state, made = close(state, day, rule, loss=loss)
        asked += [made] if made else []
    assert [(made.cause, made.data_until_us // DAY_US) for made in asked] == [(Cause.ACCURACY, 2)]
    assert asked[0].reason == "log loss 0.5667 over 3 windows, the target is 0.5"


def test_a_value_below_its_target() -> None:
    rule = replace(RULE, target_value=0.0, target_windows=2)
    state, first = close(TriggerState(), 1, rule, value=-1)
    assert first is None
    state, second = close(state, 2, rule, value=0.5)
    assert second is not None
    assert second.cause is Cause.VALUE
    assert close(TriggerState(), 1, replace(rule, target_windows=1), value=float("nan"))[1] is None


def test_windows_of_two_versions_that_end_together_are_one() -> None:
    rule = replace(RULE, target_log_loss=0.5, target_windows=2)
    state, _ = close(TriggerState(), 1, rule, rows=10, loss=0.9)
    state, made = close(state, 1, rule, rows=90, loss=0.4)
    assert made is None
    assert state.recent == ((DAY_US, 100, 45.0, 100.0),)


def test_what_is_not_known_survives_the_table() -> None:
    state, _ = close(TriggerState(), 1, RULE, value=float("nan"))
    again = TriggerState.of(orjson.loads(orjson.dumps(state.as_json())))
    assert math.isnan(again.recent[0][3])
    assert again.recent[0][:3] == state.recent[0][:3]


def test_a_report_becomes_a_window() -> None:
    codec = RecordCodec(platform_schema("window_report"))
    example = codec.from_json(json.loads((schemas_folder() / "examples" / "window_report.json").read_text()))
    measured = {**example, "measurements": '{"log_loss": 0.5, "value_per_prediction": null}'}
    window = Window.of(codec.decode(codec.encode(measured)))
    assert window is not None
    assert (window.rows, window.log_loss) == (951, 0.5)
    assert window.end_us == 1_370_908_800_000_000
    assert math.isnan(window.value)
    assert Window.of({**measured, "segment": "origin=JFK"}) is None
    assert Window.of({**measured, "kind": "PREDICTIONS"}) is None


def test_volume_counts_from_request_to_request() -> None:
    rule = replace(RULE, volume=1000)
    state, asked = TriggerState(), []
    for day in range(60):
        state, made = close(state, day, rule)
        asked += [made] if made else []
    assert [made.data_until_us // DAY_US for made in asked] == [9, 23, 37, 51]
    assert "1,400 new labelled rows" in asked[1].reason
    assert len({made.request_id for made in asked}) == 4


def test_requests_survive_their_record_and_name_their_version() -> None:
    made = ask(TriggerState(), signal(30))[1]
    assert made is not None
    codec = RecordCodec(platform_schema("retrain_request"))
    for one in (made, replace(made, data_from_us=7)):
        assert RetrainRequest.of(codec.decode(codec.encode(one.record()))) == one
    assert made.version == f"19700131T000000Z-{made.request_id[:8]}"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100), st.integers(1, 500)), max_size=60))
def test_a_state_survives_its_table_and_requests_keep_their_distance(
    steps: list[tuple[bool, int, int]],
) -> None:
    rule = RetrainRule(cooldown_us=10 * DAY_US, every_us=7 * DAY_US, volume=900)
    state, asked = TriggerState(), []
    for is_signal, day, rows in steps:
        before = state
        take = (
            (lambda s, d=day: ask(s, signal(d), rule))
            if is_signal
            else (lambda s, d=day, n=rows: close(s, d, rule, rows=n))
        )
        state, made = take(before)
        assert take(TriggerState.of(orjson.loads(orjson.dumps(before.as_json())))) == (state, made)
        assert TriggerState.of(state.as_json()) == state
        asked += [made] if made else []
    instants = [made.data_until_us for made in asked]
    assert all(later - earlier >= rule.cooldown_us for earlier, later in itertools.pairwise(instants))
    assert len({made.request_id for made in asked}) == len(asked)
