"""Given the log, each score comes out again to the bit; whatever is not so is told, counted, and proves nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from driftline.models.bundle import BundleError, load_version
from driftline.models.scoring import Scorer
from driftline.models.shadow import score_logged
from driftline.models.standing import Arm, Pinned, Split, activate, read_standing, write_standing
from driftline.project import Project
from driftline.project.declaration import DecisionRule
from driftline.replay.bundles import Bundles, registered_hashes
from driftline.replay.records import batched
from driftline.replay.replaying import Replay

from .conftest import ROWS, log_of


@pytest.fixture
def models(trained: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bundles"
    shutil.copytree(trained, folder)
    return folder


def replaced(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(
        table.column_names.index(name), name, pa.array(values, table.schema.field(name).type)
    )


def replayed(
    log: pa.Table, models: Path, *, version: str | None = None, **rules: DecisionRule
) -> tuple[Replay, list[dict[str, Any]]]:
    going = Replay(Bundles(models), rules, version=version)
    return going, going.score(log).to_pylist()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, ROWS + 1))
def test_the_version_that_answered_gives_the_same_bits_in_batches_of_any_size(
    log: pa.Table, trained: Path, size: int
) -> None:
    going = Replay(Bundles(trained), {})
    rows = [
        row
        for table in batched([log.slice(0, 77), log.slice(77)], size)
        for row in going.score(table).to_pylist()
    ]
    summary = going.summary
    assert (summary.records, summary.not_answered) == (ROWS, {"refused": ROWS // 10})
    (pairing,) = summary.pairings.values()
    assert (pairing.scored, pairing.equal, pairing.max_difference) == (ROWS * 9 // 10, ROWS * 9 // 10, 0)
    assert summary.proven
    for row, logged in zip(rows, log.to_pylist(), strict=True):
        assert (row["request_id"], row["score"], row["offset"]) == (
            logged["request_id"],
            logged["score"],
            logged["_offset"],
        )
        assert row["result"] == ("equal" if logged["status"] == "ANSWERED" else "unscored")
        assert row["reason"] == logged["error"]


def test_each_arm_of_a_trial_is_replayed_with_the_version_that_answered(
    project: Project, models: Path
) -> None:
    arm = Arm(name="canary", pinned=Pinned(version="2", sha256=""), share=0.5)
    standing = read_standing(models, "fraud")
    assert standing is not None
    tried = replace(standing, split=Split(trial="canary-2", arms=(arm,), sticky="customer"))
    write_standing(models, "fraud", tried)
    log = log_of(project, models)
    answered = {(one["arm"], one["model_version"]) for one in log.to_pylist() if one["status"] == "ANSWERED"}
    assert answered == {("canary-2/canary", "2"), ("canary-2/champion", "1")}
    going, rows = replayed(log, models)
    assert [row["score"] for row in rows] == log["score"].to_pylist()
    assert len(going.summary.pairings) == 2
    assert going.summary.proven


def test_one_bit_is_a_difference(log: pa.Table, trained: Path) -> None:
    score = log["score"][4].as_py()
    going, rows = replayed(replaced(log, "score", 4, float(np.nextafter(score, 1))), trained)
    assert [row["offset"] for row in rows if row["result"] == "different"] == [4]
    assert rows[4]["difference"] == score - float(np.nextafter(score, 1)) != 0
    assert not going.summary.proven
    assert going.summary.as_json()["equal_share"] == 1 - 1 / (ROWS * 9 // 10)


def test_another_feature_than_the_served_one_is_found_out(log: pa.Table, trained: Path) -> None:
    going, rows = replayed(replaced(log, "customer_payments__count_1h", 0, -1e6), trained)
    (pairing,) = going.summary.pairings.values()
    assert pairing.scored - pairing.equal == (rows[0]["result"] == "different") == 1


def test_a_rival_is_asked_and_its_decisions_are_those_of_its_own_scores(
    log: pa.Table, trained: Path, project: Project
) -> None:
    rule = replace(project.models["fraud"].decision, threshold=0.4)
    going, rows = replayed(log, trained, version="2", fraud=rule)
    answered = log.filter(pc.field("status") == "ANSWERED")
    scores = score_logged(Scorer(load_version(trained, "fraud", "2")), answered)
    logged = answered["score"].to_numpy()
    decisions = np.where(scores >= 0.4, "review", "accept")
    told = going.summary.as_json()
    assert [row["score"] for row in rows if row["score"] is not None] == scores.tolist()
    assert told["max_difference"] == np.abs(scores - logged).max() > 0
    assert told["mean_difference"] == pytest.approx(np.abs(scores - logged).mean())
    changed = decisions != np.array(answered["decision"].to_pylist())
    assert told["decisions_changed"] == changed.sum() > 0
    assert told["proven"]  # nothing has to be equal
    assert {row["version"] for row in rows if row["result"] != "unscored"} == {"2"}


def test_what_no_model_answered_is_told_apart(log: pa.Table, trained: Path) -> None:
    odd = replaced(replaced(log, "model_version", 0, None), "status", 1, "FAILED")
    going, rows = replayed(replaced(odd, "score", 2, None), trained)
    assert going.summary.not_answered == {"answered without a model": 1, "failed": 1, "refused": ROWS // 10}
    assert [rows[at]["result"] for at in (0, 1, 2, 3)] == ["unscored", "unscored", "unscored", "equal"]
    assert going.summary.reasons == {"the log names a version and no score": 1}
    assert not going.summary.proven


def test_what_could_not_be_read_is_not_proven(log: pa.Table, trained: Path) -> None:
    summary = replayed(log, trained)[0].summary
    assert summary.proven
    summary.missing = True
    assert not summary.proven


def test_a_version_does_not_score_what_was_served_other_views(log: pa.Table, trained: Path) -> None:
    served = replaced(log, "feature_views", 5, ["customer_payments@2", "merchant_payments@1"])
    going, rows = replayed(served, trained, version="2")
    assert "was not served" in rows[5]["reason"]
    assert going.summary.reasons == {rows[5]["reason"]: 1}
    (pairing,) = going.summary.pairings.values()
    assert (pairing.unscored, pairing.scored) == (1, ROWS * 9 // 10 - 1)


def test_an_input_that_nobody_could_give_then_is_missing(log: pa.Table, trained: Path) -> None:
    (pairing,) = replayed(log.drop_columns(["amount"]), trained, version="2")[0].summary.pairings.values()
    nulls = log.set_column(log.column_names.index("amount"), "amount", pa.nulls(ROWS, pa.float64()))
    (other,) = replayed(nulls, trained, version="2")[0].summary.pairings.values()
    assert pairing == other
    assert pairing.scored == ROWS * 9 // 10


def test_a_damaged_or_missing_version_says_what_to_do(log: pa.Table, models: Path) -> None:
    model = models / "fraud" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\n")
    going, rows = replayed(log, models)
    assert not going.summary.proven
    (reason,) = going.summary.reasons
    assert "model.onnx" in reason and "the file was changed" in reason
    assert "Put the version's folder back" in reason and "(there: 1, 2)" in reason
    assert {row["reason"] for row in rows if row["status"] == "ANSWERED"} == {reason}
    shutil.rmtree(models / "fraud" / "1")
    with pytest.raises(BundleError, match=r"cannot be read.*--model fraud@VERSION \(there: 2\)"):
        Bundles(models).find("fraud", "1")
    with pytest.raises(BundleError, match="use letters, digits"):
        Bundles(models).find("fraud", "../fraud/2")


def test_a_bundle_that_was_replaced_as_a_whole_is_found_out_by_its_registration(models: Path) -> None:
    """Its own manifest agrees with its files: only what was said of it before can tell."""
    sha256 = load_version(models, "fraud", "1").sha256
    told = {"kind": ["REGISTERED", "PROMOTED"], "model": ["fraud"] * 2, "version": ["1"] * 2}
    events = pa.table({**told, "evidence": [json.dumps({"sha256": sha256}), "{}"]})
    activate(models, "fraud", "2")
    path = models / "fraud" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert Bundles(models, registered_hashes([events])).find("fraud", "1").manifest.version == "1"
    path.write_text(json.dumps({**manifest, "owner": "someone else"}))
    alone = Bundles(models)
    alone.find("fraud", "1")
    assert alone.verified["fraud@1"].against == "its own manifest"
    with pytest.raises(BundleError, match=sha256):
        Bundles(models, registered_hashes([events])).find("fraud", "1")


def test_a_bundle_that_was_moved_to_another_version_is_not_that_version(models: Path) -> None:
    shutil.rmtree(models / "fraud" / "2")
    shutil.copytree(models / "fraud" / "1", models / "fraud" / "2")
    with pytest.raises(BundleError, match="its manifest says fraud@1, not fraud@2"):
        Bundles(models).find("fraud", "2")


def outcomes_of(log: pa.Table, labels: list[float | None], previous: list[float | None]) -> pa.Table:
    answered = log.filter(pc.field("status") == "ANSWERED").slice(0, len(labels))
    kinds = ["JOINED" if one is None else "CORRECTED" for one in previous]
    made = {
        "kind": pa.array(kinds),
        "label": pa.array(labels, pa.float64()),
        "previous_label": pa.array(previous, pa.float64()),
    }
    for name, column in made.items():
        answered = answered.append_column(name, column)
    return answered.drop_columns(["status", "error", "feature_views"])


def test_the_losses_of_both_are_those_of_the_labels_that_hold_in_the_end(
    log: pa.Table, trained: Path
) -> None:
    going, rows = replayed(log, trained, version="2")
    labels: list[float | None] = [float(number % 3 == 0) for number in range(50)]
    labels[7] = None
    joined = outcomes_of(log, labels, [None] * 50)
    corrected = joined.slice(3, 1)
    corrected = replaced(corrected, "kind", 0, "CORRECTED")
    corrected = replaced(corrected, "previous_label", 0, labels[3])
    corrected = replaced(corrected, "label", 0, 0.0)
    for part in (joined, corrected):
        going.add_outcomes(part)
    final = [0.0 if number == 3 else label for number, label in enumerate(labels)]
    answered = [row for row in rows if row["status"] == "ANSWERED"][:50]
    known = [(row, label) for row, label in zip(answered, final, strict=True) if label is not None]
    truth = [label for _, label in known]
    told = going.summary.as_json()
    assert told["labelled"] == 49
    for name, column in {"log_loss_logged": "logged_score", "log_loss_replayed": "score"}.items():
        assert told[name] == pytest.approx(log_loss(truth, [row[column] for row, _ in known]), rel=1e-12)


def test_outcomes_of_requests_that_could_not_all_be_scored_are_left_out(log: pa.Table, trained: Path) -> None:
    served = replaced(log, "feature_views", 5, ["customer_payments@2"])
    going, _ = replayed(served, trained, version="2")
    going.add_outcomes(outcomes_of(log, [1.0] * 9, [None] * 9))
    assert going.summary.as_json()["labelled"] == 0
