"""While versions are tried, each request goes to its arm: the same one always, and the log says which."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.contracts.batch_codec import BatchEncoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.models.standing import Arm, Pinned, Split, Standing, read_standing, write_standing
from driftline.runtime.ids import new_id
from driftline.serving.arms import LoadedArm, LoadedSplit, points, salt_of
from driftline.serving.breaker import BreakerState
from driftline.serving.rows import RequestRows
from tests.unit.serving.test_failing_models import RULE, World, fails
from tests.unit.serving.test_predict import request

KEYS = [f"customer-{number}" for number in range(20_000)]
SALT = salt_of("fraud", "canary-2")


def canary(share: float, trial: str = "canary-2", sticky: str = "") -> Split:
    arm = Arm(name="canary", pinned=Pinned(version="2", sha256=""), share=share)
    return Split(trial=trial, arms=(arm,), sticky=sticky)


def names(split: Split, keys: list[str]) -> list[str]:
    """The arm of each key, by name."""
    arms = [*(one.name for one in split.arms), split.control]
    loaded = LoadedSplit(
        model="fraud",
        split=split,
        entity=None,
        arms=tuple(LoadedArm(label=name, version="", line=()) for name in arms),
    )
    found = np.full(len(keys), "", object)
    for arm, rows in loaded.assign(keys):
        found[rows] = arm.label
    return list(found)


def test_a_key_has_the_same_point_alone_and_among_others_as_text_and_as_a_column() -> None:
    together = points(KEYS, SALT)
    assert (together == points(pa.array(KEYS), SALT)).all()
    assert (together[::-1] == points(KEYS[::-1], SALT)).all()
    assert [points([key], SALT)[0] for key in KEYS[:50]] == together[:50].tolist()
    repeated = pa.array(["a", "b", "a", "c", "b"])
    assert points(repeated, SALT).tolist() == points(repeated.to_pylist(), SALT).tolist()


def test_points_stay_what_they_were() -> None:
    """Another hash would move every customer of a running trial: these are the points of the first release."""
    assert [round(one, 6) for one in points(["ann", "bob", "", "ß"], SALT)] == FIRST_RELEASE


FIRST_RELEASE = [0.470472, 0.640677, 0.000795, 0.179658]


def test_points_are_uniform() -> None:
    counts = np.histogram(points(KEYS, SALT), bins=50, range=(0, 1))[0]
    chi_square = ((counts - 400.0) ** 2 / 400).sum()
    assert chi_square < 85.4  # the .999 quantile with 49 degrees of freedom


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5])
def test_a_share_of_the_keys_is_within_binomial_bounds(share: float) -> None:
    found = names(canary(share), KEYS).count("canary")
    assert abs(found - share * len(KEYS)) < 4 * np.sqrt(share * (1 - share) * len(KEYS))


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=4).map(sorted), st.lists(st.text(), max_size=60))
def test_a_canary_that_grows_takes_from_the_champion_alone(shares: list[float], keys: list[str]) -> None:
    for smaller, larger in itertools.pairwise(shares):
        before, after = names(canary(smaller), keys), names(canary(larger), keys)
        moved = {(was, now) for was, now in zip(before, after, strict=True) if was != now}
        assert moved <= {("champion", "canary")}


def test_trials_are_assigned_apart_from_each_other() -> None:
    first, second = names(canary(0.5), KEYS), names(canary(0.5, "canary-3"), KEYS)
    pairs = Counter(zip(first, second, strict=True))
    assert all(abs(pairs[pair] - 5_000) < 4 * np.sqrt(20_000 * 0.25 * 0.75) for pair in pairs)
    assert len(pairs) == 4


def test_several_arms_have_a_share_each() -> None:
    arms = tuple(Arm(name=f"v{n}", pinned=Pinned(version=str(n), sha256=""), share=n / 10) for n in (1, 2, 3))
    counts = Counter(names(Split(trial="t", arms=arms, control="old"), KEYS))
    for name, share in {"v1": 0.1, "v2": 0.2, "v3": 0.3, "old": 0.4}.items():
        assert abs(counts[name] - share * 20_000) < 4 * np.sqrt(share * (1 - share) * 20_000)


@pytest.mark.parametrize("shares", [(), (0.0,), (0.6, 0.6), (-0.1,)])
def test_shares_that_cannot_be_are_refused(shares: tuple[float, ...]) -> None:
    pinned = Pinned(version="2", sha256="")
    arms = [Arm(name=str(n), pinned=pinned, share=share) for n, share in enumerate(shares)]
    with pytest.raises(ValueError, match="add up to 1"):
        Split(trial="t", arms=tuple(arms))
    with pytest.raises(ValueError, match="names of their own"):
        Split(trial="t", arms=(Arm(name="champion", pinned=pinned, share=0.5),))


class Trials(World):
    """The world of failing models; 3 is champion, 2 and 1 are its priors."""

    def __init__(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(models, monkeypatch)
        self.models = models

    def try_out(self, split: Split | None) -> None:
        found = read_standing(self.models, "fraud")
        assert found is not None
        write_standing(self.models, "fraud", replace(found, split=split))
        self.rack.refresh()

    def break_down_arm(self, version: str) -> None:
        self.does[version] = fails
        for _ in range(RULE.least_calls):
            self.predict(*ASKED)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trials]:
    yield Trials(tmp_path, monkeypatch)


ASKED = [request(customer=f"fresh-{number % 90}", merchant=f"fresh-{number % 7}") for number in range(400)]


def test_nothing_tried_leaves_no_arm_in_the_log(world: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.serving.arms.points", None)  # it would be called in vain
    world.try_out(None)
    assert {one["arm"] for one in world.predict(*ASKED)} == {None}


def test_each_arm_is_answered_by_its_own_version_bit_by_bit(world: Trials) -> None:
    champion = [one["score"] for one in world.predict(*ASKED)]
    world.try_out(canary(1.0))
    challenger = [one["score"] for one in world.predict(*ASKED)]
    world.try_out(canary(0.5))
    found = world.predict(*ASKED)
    wanted = names(canary(0.5), [one["request_id"] for one in ASKED])
    assert set(wanted) == {"canary", "champion"}
    assert [one["arm"] for one in found] == [f"canary-2/{name}" for name in wanted]
    for one, name, old, new in zip(found, wanted, champion, challenger, strict=True):
        assert (one["status"], one["error"]) == ("ANSWERED", None)
        assert one["model_version"] == ("2" if name == "canary" else "3")
        assert one["score"] == (new if name == "canary" else old)
    assert champion != challenger


def test_a_request_id_is_assigned_whatever_its_letters(world: Trials) -> None:
    world.try_out(canary(0.5))
    lower = [new_id() for _ in range(40)]
    once = world.predict(*(request(request_id=one) for one in lower))
    again = world.predict(*(request(request_id=one.upper()) for one in lower))
    assert [one["arm"] for one in once] == [one["arm"] for one in again]
    assert len({one["arm"] for one in once}) == 2


def test_a_sticky_entity_keeps_its_arm(world: Trials) -> None:
    world.try_out(canary(0.3, sticky="customer"))
    found = world.predict(*ASKED)
    arms: dict[str, set[str]] = {}
    for one in found:
        arms.setdefault(one["customer"], set()).add(one["arm"])
    assert all(len(one) == 1 for one in arms.values())
    wanted = names(canary(0.3), list(arms))
    assert [arm for one in arms.values() for arm in one] == [f"canary-2/{name}" for name in wanted]


@pytest.mark.parametrize("sticky", ["", "customer"])
def test_rows_and_columns_give_the_same_bytes_in_the_log(world: Trials, sticky: str) -> None:
    world.try_out(canary(0.4, sticky=sticky))
    asked = [*ASKED[:50], request(customer=None), request(request_id="none"), request(model="nothing")]
    as_columns = world.engine.predict(pa.RecordBatch.from_pylist(asked, schema=world.schema), "HTTP")
    rows = world.engine.predict(RequestRows(asked, frozenset({"amount"})), "HTTP")
    took = as_columns.column("duration_us").to_pylist()
    as_rows = [{**one, "duration_us": us} for one, us in zip(rows, took, strict=True)]
    schema = prediction_schema(world.project)
    codec = RecordCodec(schema)
    assert BatchEncoder(schema, 7).encode(as_columns) == [frame(7, codec.encode(one)) for one in as_rows]
    assert [one["arm"] for one in as_rows[-3:]] == [None] * 3  # refused before anybody was asked


def test_the_champion_answers_for_an_arm_that_fails_and_the_log_keeps_the_arm(world: Trials) -> None:
    world.try_out(canary(0.5))
    world.does["2"] = fails
    found = [one for one in world.predict(*ASKED) if one["arm"] == "canary-2/canary"]
    assert {(one["status"], one["model_version"]) for one in found} == {("ANSWERED", "3")}
    assert {one["error"] for one in found} == {"fraud@2 failed: out of beans; fraud@3 answered"}
    for _ in range(RULE.least_calls):
        world.predict(*ASKED)
    (told,) = world.rack.take_incidents()
    assert (told.version, told.champion, told.arm) == ("2", False, "canary-2/canary")
    assert told.answered_by == "3"


def test_arms_that_fail_do_not_touch_the_champions_requests(world: Trials) -> None:
    world.try_out(canary(0.5))
    world.does["2"] = fails
    found = [one for one in world.predict(*ASKED) if one["arm"] == "canary-2/champion"]
    assert {(one["model_version"], one["error"]) for one in found} == {("3", None)}


def test_the_priors_answer_where_neither_arm_nor_champion_can(world: Trials) -> None:
    world.try_out(canary(0.5))
    world.does = {"2": fails, "3": fails}
    found = world.predict(*ASKED)
    assert {(one["status"], one["model_version"]) for one in found} == {("ANSWERED", "1")}


def test_a_breaker_and_its_state_outlive_a_step(world: Trials) -> None:
    world.try_out(canary(0.5))
    world.break_down_arm("2")
    world.try_out(canary(0.9))
    loaded = world.rack.get("fraud")
    assert loaded is not None
    assert loaded.versions["2"].breaker.state is BreakerState.OPEN
    world.try_out(None)
    assert {one["model_version"] for one in world.predict(*ASKED)} == {"3"}


def test_an_arm_whose_bundle_cannot_be_used_is_answered_for_and_told(world: Trials) -> None:
    split = canary(0.5)
    lost = replace(split, arms=(replace(split.arms[0], pinned=Pinned(version="9", sha256="")),))
    world.try_out(lost)
    found = [one for one in world.predict(*ASKED) if one["arm"] == "canary-2/canary"]
    assert {one["model_version"] for one in found} == {"3"}
    assert all(one["error"].startswith("fraud@9 cannot be used: ") for one in found)
    assert world.rack.take_incidents() == []
    world.now = 20.0
    world.rack.refresh()
    (told,) = world.rack.take_incidents()
    assert (told.version, told.failing, told.arm, told.answered_by) == ("9", True, "canary-2/canary", "3")
    world.rack.refresh()
    assert world.rack.take_incidents() == []


def test_a_trial_by_an_entity_that_the_model_does_not_have_is_passed_over(world: Trials) -> None:
    world.try_out(canary(0.5, sticky="courier"))
    assert {(one["arm"], one["model_version"]) for one in world.predict(*ASKED)} == {(None, "3")}


def test_a_standing_with_arms_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "fraud").mkdir()
    one = Standing(active=Pinned(version="3", sha256="c" * 64), split=canary(0.25, sticky="customer"))
    write_standing(tmp_path, "fraud", one)
    assert read_standing(tmp_path, "fraud") == one
    assert one.pins == {"3": "c" * 64, "2": ""}
