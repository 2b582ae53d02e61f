"""A model on disk: an ONNX file, a manifest that says what it is, a card that a person reads.

::

    <models>/<model>/<version>/model.onnx
                               manifest.json   names every other file with its SHA-256
                               card.md
    <models>/<model>/active.json               which versions serve (``driftline.models.standing``)

A bundle is data. Nothing in it runs when it is loaded, so a pickle is refused.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from driftline.models.model_event import TrainingCause
from driftline.runtime.errors import ConfigurationError

MODEL_FILE = "model.onnx"
CARD_FILE = "card.md"
MANIFEST_FILE = "manifest.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth"}
#: First bytes of what joblib (zlib, gzip, bz2, xz, lz4) and torch (zip) pack pickles into. ONNX starts otherwise.
_PACKED = (
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x5d\0\0",
    b"\x04\x22\x4d\x18",
    b"PK\x03\x04",
)
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleError(ConfigurationError):
    """A bundle is missing, damaged or not to be trusted. The message says which file and why."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Decision(_Value):
    """The rule that turns a score into a decision."""

    threshold: float
    above: str
    below: str


class Quality(_Value):
    """How well scores fit what happened: area under the curve, log loss, Brier score."""

    auc: float
    log_loss: float
    brier: float


class TrainingSet(_Value):
    """What a model learned from: the span, the rows, and a hash that names exactly these rows."""

    start: str
    end: str
    rows: int
    validation_rows: int
    validation_start: str
    positive_share: float
    without_label: int
    sha256: _Sha256


class Conversion(_Value):
    """The proof that the ONNX model equals the pipeline that was trained."""

    rows: int
    max_difference: float
    tolerance: float


class BundleManifest(_Value):
    """What a bundle is: its columns in order, where it comes from, what it is worth, its files' hashes.

    ``cause`` is None where a person trained it with ``driftline train``. ``deprecated`` says which of the views were so
    when it was trained, until when, and what comes after them. ``codes`` says for each input
    of a code list which version the model knows; the first where it is not there.
    """

    format: Literal[1] = 1
    project: str
    model: str
    version: str
    created_at: str
    description: str
    owner: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    views: tuple[str, ...]
    deprecated: tuple[str, ...] = ()
    codes: dict[str, int] = {}
    decision: Decision
    candidate: str
    estimator: str
    training: TrainingSet
    metrics: dict[str, Quality]
    conversion: Conversion
    environment: dict[str, str]
    cause: TrainingCause | None = None
    files: dict[str, _Sha256]

    @property
    def ref(self) -> str:
        """The model with its version, like ``lateness@20130401T000000Z-1f2e3d4c``."""
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose every hash was checked. ``sha256`` is the manifest's, and so names all of it."""

    path: Path
    manifest: BundleManifest
    model: bytes
    sha256: str


def write_bundle(
    models_dir: Path,
    manifest: BundleManifest,
    *,
    model: bytes,
    card: str,
    extra: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a bundle whole or not at all, and return its folder; the files' hashes are filled in.

    ``extra`` are further files by name, like the reference for drift.

    Raises
    ------
    BundleError
        Where the version exists (a version never changes), or the model is a pickle.
    """
    _refuse_pickle(Path(MODEL_FILE), model)
    contents = {**(extra or {}), MODEL_FILE: model, CARD_FILE: card.encode()}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    complete = manifest.model_copy(update={"files": hashes})
    contents[MANIFEST_FILE] = (json.dumps(complete.model_dump(mode="json"), indent=2) + "\n").encode()
    target = _folder(models_dir, manifest.model, manifest.version)
    if target.exists():
        raise BundleError(f"{target}: version {manifest.version!r} exists; a version never changes")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as scratch:
        written = Path(scratch) / "bundle"
        written.mkdir()
        for name, content in contents.items():
            write_durably(written / name, content)
        written.rename(target)
    return target


def load_bundle(path: Path, *, sha256: str | None = None) -> Bundle:
    """Load a bundle after checking every hash; ``sha256`` is the manifest's, where the caller knows it.

    Raises
    ------
    BundleError
        Where a file is missing, differs from its hash, is not named by the manifest, or is a pickle.
    """
    manifest_bytes = read_bytes(path / MANIFEST_FILE)
    found = hashlib.sha256(manifest_bytes).hexdigest()
    if sha256 is not None and found != sha256:
        msg = f"{path / MANIFEST_FILE}: its SHA-256 is {found}, but {sha256} was activated; train or activate again"
        raise BundleError(msg)
    try:
        manifest = BundleManifest.model_validate_json(manifest_bytes)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise BundleError(f"{path / MANIFEST_FILE}: {place}: {problem['msg']}") from error
    named = {MANIFEST_FILE, *manifest.files}
    for file in sorted(path.iterdir()):
        if file.name not in named:
            _refuse_pickle(file, b"")
            raise BundleError(f"{file}: is not named by {MANIFEST_FILE}; a bundle holds nothing else")
    if MODEL_FILE not in manifest.files:
        raise BundleError(f"{path / MANIFEST_FILE}: files: names no {MODEL_FILE}")
    contents = {}
    for name, expected in manifest.files.items():
        check_name("file", name)
        content = read_bytes(path / name)
        _refuse_pickle(path / name, content)
        actual = hashlib.sha256(content).hexdigest()
        if actual != expected:
            msg = (
                f"{path / name}: its SHA-256 is {actual}, the manifest says {expected}; the file was changed"
            )
            raise BundleError(msg)
        contents[name] = content
    return Bundle(path=path, manifest=manifest, model=contents[MODEL_FILE], sha256=found)


def load_version(models_dir: Path, model: str, version: str, *, sha256: str | None = None) -> Bundle:
    """Load a version of a model after checking every hash, and that it is the one that its folder says.

    Raises
    ------
    BundleError
        As ``load_bundle``, and where the manifest names another model or version.
    """
    bundle = load_bundle(_folder(models_dir, model, version), sha256=sha256)
    if (bundle.manifest.model, bundle.manifest.version) != (model, version):
        raise BundleError(f"{bundle.path}: its manifest says {bundle.manifest.ref}, not {model}@{version}")
    return bundle


def versions(models_dir: Path, model: str) -> list[str]:
    """Return the names of all versions of a model, oldest first."""
    check_name("model", model)
    folder = models_dir / model
    if not folder.is_dir():
        return []
    return sorted(item.parent.name for item in folder.glob(f"[!.]*/{MANIFEST_FILE}"))


def _folder(models_dir: Path, model: str, version: str) -> Path:
    check_name("model", model)
    check_name("version", version)
    return models_dir / model / version


def check_name(kind: str, name: str) -> None:
    """Refuse names that could lead out of the folder."""
    if not _NAME.fullmatch(name):
        raise BundleError(f"{kind} name {name!r}: use letters, digits, dots, dashes and underscores")


def _refuse_pickle(path: Path, content: bytes) -> None:
    """Refuse by name and by first bytes (protocol 2 and later start with 0x80 and the protocol)."""
    marked = len(content) > 1 and content[0] == 0x80 and 2 <= content[1] <= 5
    packed = path.name == MODEL_FILE and content.startswith(_PACKED)
    if marked or packed or path.suffix.lower() in _PICKLE_SUFFIXES:
        what = "a packed file, as joblib and torch write pickles" if packed else "a pickle"
        msg = (
            f"{path}: is {what}, which can run any code when it is loaded; a bundle holds ONNX only. Train the model with "
            "`driftline train`, or load the file where you trust it, turn the pipeline into ONNX with "
            "driftline.models.conversion.convert, and write that with driftline.models.bundle.write_bundle"
        )
        raise BundleError(msg)


def read_bytes(path: Path) -> bytes:
    """Return a file's content; BundleError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that a crash does not undo."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
