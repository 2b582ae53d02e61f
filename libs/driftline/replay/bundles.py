"""The model versions that a replay scores with, each loaded once, and only where every hash is right."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from driftline.features.code_lists import CodedField
from driftline.models.bundle import BundleError, load_version, versions
from driftline.models.model_event import Kind, evidence_of
from driftline.models.scoring import Scorer
from driftline.models.standing import active_version, load_active

#: So many versions are held ready to score; one that is needed again is verified and loaded again.
_READY = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A version whose hashes are right: ``sha256`` is its manifest's.

    ``against`` says what that was held to: the model's life (``model-events``), the note of its activation, or
    nothing but itself.
    """

    sha256: str
    against: str


class Bundles:
    """Finds versions by name in a folder of bundles.

    Parameters
    ----------
    registered
        The manifests' hashes as versions were registered, by model and version: a bundle that was replaced as a
        whole, manifest and all, is found out by them.
    codes
        The inputs of code lists, by model.
    """

    def __init__(
        self,
        models: Path,
        registered: Mapping[tuple[str, str], str] | None = None,
        codes: Mapping[str, Sequence[CodedField]] | None = None,
    ) -> None:
        self._folder = models
        self._registered = dict(registered or {})
        self._codes = dict(codes or {})
        self._ready: OrderedDict[tuple[str, str], Scorer] = OrderedDict()
        self._broken: dict[tuple[str, str], str] = {}
        self.verified: dict[str, Verified] = {}

    def find(self, model: str, version: str) -> Scorer:
        """Return a version, ready to score.

        Raises
        ------
        BundleError
            It is missing or damaged; the message says what can be done.
        """
        key = (model, version)
        if key in self._broken:
            raise BundleError(self._broken[key])
        if key not in self._ready:
            try:
                self._ready[key] = self._load(model, version)
            except BundleError as error:
                self._broken[key] = f"{error}. {self._remedy(model)}"
                raise BundleError(self._broken[key]) from error
            if len(self._ready) > _READY:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        return self._ready[key]

    def _load(self, model: str, version: str) -> Scorer:
        sha256 = self._registered.get((model, version))
        against = "its registration"
        if sha256 is None and active_version(self._folder, model) == version:
            active = load_active(self._folder, model)
            sha256, against = (None if active is None else active.sha256), "its activation"
        bundle = load_version(self._folder, model, version, sha256=sha256)
        self.verified[bundle.manifest.ref] = Verified(
            sha256=bundle.sha256, against="its own manifest" if sha256 is None else against
        )
        return Scorer(bundle, self._codes.get(model, ()))

    def _remedy(self, model: str) -> str:
        there = ", ".join(versions(self._folder, model)) or "none"
        return (
            "Put the version's folder back as it was, from a backup or from another machine that serves the model, or "
            f"name the folder of bundles with --models; to ask another version, use --model {model}@VERSION (there: {there})"
        )


def registered_hashes(model_events: Iterable[pa.Table]) -> dict[tuple[str, str], str]:
    """Return the hashes of the manifests of versions, as the facts of their registration have them."""
    found: dict[tuple[str, str], str] = {}
    for table in model_events:
        facts = table.filter(pc.field("kind") == Kind.REGISTERED.value)
        columns = (facts[name].to_pylist() for name in ("model", "version", "evidence"))
        for model, version, evidence in zip(*columns, strict=True):
            sha256 = evidence_of(evidence).get("sha256")
            if isinstance(sha256, str):
                found.setdefault((model, version), sha256)
    return found
