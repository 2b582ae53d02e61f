"""What predictors load follows from the history: the champion, those to fall back on, or why nothing serves."""

from pathlib import Path

from driftline.models.model_event import Kind
from driftline.models.standing import Pinned, Standing
from services.model_registry.pointing import standing_of
from tests.unit.models_life.test_lifecycle import reigned


def bundles(folder: Path, *versions: str) -> Path:
    for version in versions:
        (folder / "lateness" / version).mkdir(parents=True)
        (folder / "lateness" / version / "manifest.json").write_text(version)
    return folder


def named(standing: Standing) -> tuple[str | None, list[str]]:
    active = standing.active
    return active and active.version, [one.version for one in standing.priors]


def test_the_champion_and_those_before_it_the_newest_first(tmp_path: Path) -> None:
    models = bundles(tmp_path, "v1", "v2", "v3")
    history = reigned((Kind.PROMOTED, "v1", 10), (Kind.PROMOTED, "v2", 20), (Kind.PROMOTED, "v3", 30))
    found = standing_of(history, models, None)
    assert named(found) == ("v3", ["v2", "v1"])
    assert found.reign == history.reigns[-1].event_id
    assert all(len(one) == 64 for one in found.pins.values())
    assert standing_of(history, models, found) == found


def test_what_was_rolled_back_or_pulled_is_nothing_to_fall_back_on(tmp_path: Path) -> None:
    models = bundles(tmp_path, "v1", "v2", "v3")
    promoted = [(Kind.PROMOTED, "v1", 10), (Kind.PROMOTED, "v2", 20), (Kind.PROMOTED, "v3", 30)]
    assert named(standing_of(reigned(*promoted, (Kind.ROLLED_BACK, "v3", 40)), models, None)) == (
        "v2",
        ["v1"],
    )
    pulled = standing_of(reigned(*promoted, (Kind.PULLED, "v2", 40)), models, None)
    assert (named(pulled), pulled.pulled) == (("v3", ["v1"]), ("v2",))


def test_the_only_champion_pulled_leaves_nothing_and_the_reason(tmp_path: Path) -> None:
    models = bundles(tmp_path, "v1", "v2")
    changes = [(Kind.PROMOTED, "v1", 10), (Kind.PULLED, "v1", 20)]
    found = standing_of(reigned(*changes), models, None)
    assert (named(found), found.pulled) == ((None, []), ("v1",))
    assert found.withdrawn == "lateness@v1 was pulled by test: "
    after = standing_of(reigned(*changes, (Kind.PROMOTED, "v2", 30)), models, found)
    assert (named(after), after.withdrawn, after.pulled) == (("v2", []), "", ("v1",))


def test_a_version_keeps_the_hash_it_was_held_to_and_one_without_a_bundle_is_left_out(tmp_path: Path) -> None:
    models = bundles(tmp_path, "v2")
    history = reigned((Kind.PROMOTED, "v1", 10), (Kind.PROMOTED, "v2", 20))
    before = Standing(active=Pinned(version="v2", sha256="a" * 64))
    found = standing_of(history, models, before)
    assert (found.active, found.priors) == (before.active, ())
