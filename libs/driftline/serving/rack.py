"""The models that are loaded: one active bundle each, followed when another is activated."""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driftline.models.bundle import BundleError, active_version, load_active
from driftline.models.scoring import Scorer
from driftline.project import ModelDeclaration, Project
from driftline.runtime.logging import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A declared model with its active version, warmed up."""

    declaration: ModelDeclaration
    scorer: Scorer

    @property
    def version(self) -> str:
        """The active version."""
        return self.scorer.manifest.version


class ModelRack:
    """Loads the active bundle of each of a project's models, and switches when another becomes active.

    A new bundle is verified and warmed up before the switch; where it cannot be, the old one stays.
    """

    def __init__(self, models: Path, project: Project) -> None:
        self._folder = models
        self._project = project
        self._loaded: dict[str, LoadedModel] = {}
        self._broken: dict[str, str] = {}
        self._lock = threading.Lock()
        self.refresh()

    def get(self, model: str) -> LoadedModel | None:
        """Return a model that is loaded; None for one without an active version."""
        return self._loaded.get(model)

    @property
    def missing(self) -> dict[str, str]:
        """Models that cannot be served, with the reason."""
        return {
            name: self._broken.get(name, "no version is active; train one with `driftline train`")
            for name in self._project.models
            if name not in self._loaded
        }

    @property
    def troubles(self) -> dict[str, str]:
        """Models whose newly activated version cannot be used, so that the old one still serves."""
        return dict(self._broken)

    def refresh(self) -> None:
        """Load what was activated since the last call."""
        with self._lock:
            for name, declaration in self._project.models.items():
                self._refresh(name, declaration)

    def _refresh(self, name: str, declaration: ModelDeclaration) -> None:
        held = self._loaded.get(name)
        try:
            version = active_version(self._folder, name)
            if version is None or (held is not None and held.version == version):
                self._broken.pop(name, None)
                return
            bundle = load_active(self._folder, name)
            if bundle is None:
                return
            scorer = Scorer(bundle, declaration.coded_inputs)
            self._check(declaration, scorer)
            _warm_up(scorer)
        except BundleError as error:
            if self._broken.get(name) != str(error):
                _log.error(
                    "a bundle cannot be used", model=name, error=str(error), kept=held and held.version
                )
            self._broken[name] = str(error)
            return
        self._broken.pop(name, None)
        self._loaded[name] = LoadedModel(declaration=declaration, scorer=scorer)
        _log.info("model loaded", model=name, version=bundle.manifest.version, before=held and held.version)

    @staticmethod
    def _check(declaration: ModelDeclaration, scorer: Scorer) -> None:
        manifest = scorer.manifest
        known = set(declaration.numeric_columns) | set(declaration.categorical_columns)
        unknown = [name for name in (*manifest.numeric, *manifest.categorical) if name not in known]
        declared = {view.ref for view in declaration.views}
        views = [ref for ref in manifest.views if ref not in declared]
        if unknown or views:
            msg = (
                f"{manifest.ref} was trained on {', '.join(unknown + views)}, which the project does not declare any more; "
                "train a new version"
            )
            raise BundleError(msg)


def _warm_up(scorer: Scorer) -> None:
    """Score two rows without values, so that the first request does not pay for set-up."""
    manifest = scorer.manifest
    numeric = np.full((2, len(manifest.numeric)), np.nan)
    try:
        scorer.score(numeric, {name: [None, None] for name in manifest.categorical})
    except Exception as error:  # ONNX Runtime raises bare exceptions of a dozen private types
        raise BundleError(f"{manifest.ref} cannot score: {error}") from error
