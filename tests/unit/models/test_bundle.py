"""A bundle that is not exactly what was written is refused, with the file and the reason."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import joblib
import pytest

from driftline.models.bundle import BundleError, BundleManifest, load_bundle, versions, write_bundle
from driftline.models.standing import activate, active_version, load_active

Make = Callable[..., BundleManifest]


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.abort, ())


def test_what_was_written_is_loaded(models_dir: Path, manifest: Make) -> None:
    bundle = load_bundle(models_dir / "returns" / "1")
    assert bundle.manifest.model_copy(update={"files": {}}) == manifest("1")
    assert set(bundle.manifest.files) == {"model.onnx", "card.md"}
    assert bundle.manifest.ref == "returns@1"


@pytest.mark.parametrize("name", ["model.onnx", "card.md"])
def test_a_changed_file_is_refused(models_dir: Path, name: str) -> None:
    path = models_dir / "returns" / "1" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}: its SHA-256 is .*the file was changed"):
        load_bundle(path.parent)


@pytest.mark.parametrize("name", ["model.onnx", "card.md", "manifest.json"])
def test_a_missing_file_is_refused(models_dir: Path, name: str) -> None:
    (models_dir / "returns" / "1" / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: cannot be read: No such file"):
        load_bundle(models_dir / "returns" / "1")


def test_a_file_that_the_manifest_does_not_name_is_refused(models_dir: Path) -> None:
    (models_dir / "returns" / "1" / "setup.py").write_text("print('hello')")
    with pytest.raises(BundleError, match=r"setup.py: is not named by manifest.json"):
        load_bundle(models_dir / "returns" / "1")


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.pickle"])
def test_a_pickle_beside_the_model_is_refused_with_the_reason(models_dir: Path, name: str) -> None:
    (models_dir / "returns" / "1" / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BundleError, match="is a pickle, which can run any code when it is loaded"):
        load_bundle(models_dir / "returns" / "1")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_in_the_models_place_is_refused_even_with_its_hash(
    models_dir: Path, manifest: Make, protocol: int
) -> None:
    content = pickle.dumps(Bomb(), protocol=protocol)
    with pytest.raises(BundleError, match="is a pickle"):
        write_bundle(models_dir, manifest("2"), model=content, card="")
    assert versions(models_dir, "returns") == ["1"]


@pytest.mark.parametrize("packing", [1, "gzip", "bz2", "lzma", "xz"])
def test_what_joblib_packed_is_refused_with_what_to_do(
    models_dir: Path, manifest: Make, tmp_path: Path, packing: str | int
) -> None:
    compress = packing if isinstance(packing, int) else (packing, 3)
    joblib.dump(list(range(1000)), tmp_path / "packed", compress=compress)
    with pytest.raises(BundleError, match=r"packed file, as joblib.*conversion\.convert.*write_bundle"):
        write_bundle(models_dir, manifest("2"), model=(tmp_path / "packed").read_bytes(), card="")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 2}, "manifest.json: format: "),
        ({"numeric": "size"}, "manifest.json: numeric: "),
        ({"surprise": 1}, "manifest.json: surprise: "),
        ({"files": {}}, "names no model.onnx"),
        ({"files": {"model.onnx": "abc"}}, "manifest.json: files.model.onnx: "),
    ],
)
def test_a_wrong_manifest_is_refused(models_dir: Path, change: dict[str, object], complaint: str) -> None:
    path = models_dir / "returns" / "1" / "manifest.json"
    for name in ("card.md", "model.onnx") if change.get("files") == {} else ():
        (path.parent / name).unlink()
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BundleError, match=complaint):
        load_bundle(path.parent)


def test_a_manifest_that_is_no_json_is_refused(models_dir: Path) -> None:
    path = models_dir / "returns" / "1" / "manifest.json"
    path.write_text("{")
    with pytest.raises(BundleError, match=r"manifest.json: .*JSON"):
        load_bundle(path.parent)


def test_a_manifest_cannot_name_a_file_elsewhere(models_dir: Path) -> None:
    path = models_dir / "returns" / "1" / "manifest.json"
    content = json.loads(path.read_text())
    content["files"]["../../secret"] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"file name '../../secret'"):
        load_bundle(path.parent)


@pytest.mark.parametrize("name", ["..", "../x", "", ".hidden", "a/b", "x" * 200])
def test_a_version_cannot_lead_elsewhere(models_dir: Path, name: str) -> None:
    with pytest.raises(BundleError, match="version name"):
        activate(models_dir, "returns", name)
    with pytest.raises(BundleError, match="model name"):
        active_version(models_dir, name)


def test_a_version_never_changes(models_dir: Path, manifest: Make) -> None:
    with pytest.raises(BundleError, match="version '1' exists"):
        write_bundle(models_dir, manifest("1"), model=b"other", card="")


def test_activation(models_dir: Path, manifest: Make) -> None:
    assert active_version(models_dir, "returns") is None
    assert load_active(models_dir, "returns") is None
    activate(models_dir, "returns", "1")
    assert active_version(models_dir, "returns") == "1"

    model = (models_dir / "returns" / "1" / "model.onnx").read_bytes()
    write_bundle(models_dir, manifest("2"), model=model, card="")
    assert active_version(models_dir, "returns") == "1"
    activate(models_dir, "returns", "2")
    active = load_active(models_dir, "returns")
    assert active is not None
    assert active.manifest.version == "2"
    assert versions(models_dir, "returns") == ["1", "2"]
    assert sorted(item.name for item in (models_dir / "returns").iterdir()) == ["1", "2", "active.json"]


def test_a_damaged_version_is_not_activated(models_dir: Path) -> None:
    activate(models_dir, "returns", "1")
    (models_dir / "returns" / "1" / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="the file was changed"):
        activate(models_dir, "returns", "1")
    with pytest.raises(BundleError, match="cannot be read"):
        activate(models_dir, "returns", "7")


def test_a_bundle_under_another_name_is_not_activated(models_dir: Path) -> None:
    (models_dir / "returns" / "1").rename(models_dir / "returns" / "9")
    with pytest.raises(BundleError, match=r"says returns@1, not returns@9"):
        activate(models_dir, "returns", "9")


def test_a_manifest_that_was_swapped_after_activation_is_refused(models_dir: Path) -> None:
    activate(models_dir, "returns", "1")
    path = models_dir / "returns" / "1" / "manifest.json"
    path.write_text(path.read_text().replace("0.5", "0.9"))
    assert load_bundle(path.parent).manifest.decision.threshold == 0.9
    with pytest.raises(BundleError, match="was activated"):
        load_active(models_dir, "returns")


def test_a_damaged_activation_is_told(models_dir: Path) -> None:
    (models_dir / "returns" / "active.json").write_text("[]")
    with pytest.raises(BundleError, match=r"active.json: is damaged"):
        load_active(models_dir, "returns")
