"""Which versions of a model serve: the pointer that whoever decides writes, and every predictor follows.

``<models>/<model>/active.json`` names the version that answers, those to fall back on where it fails, or why the model
is out of service. Each version is held to the SHA-256 that its manifest had when it was named. The model registry
writes what the log of model events says; ``driftline train`` writes it where a person activates.

While versions are tried (a canary, an A/B test), it also names the arms that answer a share of the requests each.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from driftline.contracts.prediction_fields import arm_label
from driftline.models.bundle import (
    MANIFEST_FILE,
    Bundle,
    BundleError,
    check_name,
    load_version,
    read_bytes,
    write_durably,
)

ACTIVE_FILE = "active.json"
#: Versions that are kept loaded to fall back on; each costs the memory of a model.
MOST_PRIORS = 2
#: Shares that add up to 1 as people write them may add up to a little more as floats.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A version, held to the SHA-256 of its manifest."""

    version: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A version that answers a share of the requests, more than 0 and at most 1."""

    name: str
    pinned: Pinned
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A trial: arms that answer a share of a model's requests each; the champion, as ``control``, answers the rest.

    Attributes
    ----------
    trial
        Name of the trial, another for each of a model; who is assigned to which arm follows from it.
    sticky
        The entity whose requests all go to one arm; empty: each request is assigned by its own id.
    """

    trial: str
    arms: tuple[Arm, ...]
    control: str = "champion"
    sticky: str = ""

    def __post_init__(self) -> None:
        shares = [one.share for one in self.arms]
        names = {self.control, *(one.name for one in self.arms)}
        if not shares or min(shares) <= 0 or math.fsum(shares) > 1 + _ROUNDING or len(names) <= len(shares):
            raise ValueError(
                f"trial {self.trial!r}: arms need names of their own, and shares that add up to 1 at most"
            )

    def label(self, arm: str) -> str:
        """Return an arm as the log names it."""
        return arm_label(self.trial, arm)

    def arm_of(self, version: str) -> str:
        """Return the arm that a version answers, as the log names it; empty where there is none."""
        return next((self.label(one.name) for one in self.arms if one.pinned.version == version), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Which versions of a model serve.

    Attributes
    ----------
    active
        The version that answers; None where the model is out of service.
    priors
        Former champions to fall back on, the one that served last first.
    reign
        Id of the event with which the champion's reign began; empty where a person activated the version.
    withdrawn
        Why the model is out of service; empty where it serves.
    pulled
        Versions that may never score again.
    split
        The arms beside the champion, while versions are tried.
    """

    active: Pinned | None
    priors: tuple[Pinned, ...] = ()
    reign: str = ""
    withdrawn: str = ""
    pulled: tuple[str, ...] = ()
    split: Split | None = None

    @property
    def pins(self) -> dict[str, str]:
        """The SHA-256 of every version that is named."""
        arms = () if self.split is None else tuple(one.pinned for one in self.split.arms)
        named = (*([self.active] if self.active else []), *self.priors, *arms)
        return {one.version: one.sha256 for one in named}

    def as_json(self) -> dict[str, Any]:
        """Return it as the file holds it."""
        active = self.active
        return {
            "version": active and active.version,
            "manifest_sha256": active and active.sha256,
            "priors": [_pin_json(one) for one in self.priors],
            "reign": self.reign,
            "withdrawn": self.withdrawn,
            "pulled": list(self.pulled),
            "split": None if self.split is None else _split_json(self.split),
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Return what a file holds; files of before there was anything to fall back on name a version only."""
        return cls(
            active=None if found["version"] is None else _pinned(found),
            priors=tuple(_pinned(one) for one in found.get("priors", ())),
            reign=str(found.get("reign", "")),
            withdrawn=str(found.get("withdrawn", "")),
            pulled=tuple(map(str, found.get("pulled", ()))),
            split=None if found.get("split") is None else _split(found["split"]),
        )


def read_standing(models_dir: Path, model: str) -> Standing | None:
    """Return which versions of a model serve; None where nothing was ever activated.

    Raises
    ------
    BundleError
        The file is damaged.
    """
    check_name("model", model)
    path = models_dir / model / ACTIVE_FILE
    if not path.exists():
        return None
    try:
        return Standing.from_json(json.loads(read_bytes(path)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: is damaged ({error}); train or activate a version again") from error


def write_standing(models_dir: Path, model: str, standing: Standing) -> None:
    """Say which versions serve, atomically."""
    check_name("model", model)
    target = models_dir / model / ACTIVE_FILE
    scratch = target.with_name(f".{ACTIVE_FILE}.{os.getpid()}")
    write_durably(scratch, (json.dumps(standing.as_json()) + "\n").encode())
    scratch.replace(target)


def activate(models_dir: Path, model: str, version: str) -> Bundle:
    """Make a version the active one, atomically, after checking it; return its bundle. The one before is its prior."""
    bundle = load_version(models_dir, model, version)
    try:
        before = read_standing(models_dir, model)
    except BundleError:
        before = None
    known = () if before is None else (*([before.active] if before.active else []), *before.priors)
    priors = tuple(one for one in known if one.version != version)[:MOST_PRIORS]
    write_standing(
        models_dir,
        model,
        Standing(
            active=Pinned(version=version, sha256=bundle.sha256),
            priors=priors,
            pulled=() if before is None else before.pulled,
        ),
    )
    return bundle


def pin(models_dir: Path, model: str, version: str) -> Pinned | None:
    """Hold a version to the manifest that it has now; None where it has none that can be read."""
    try:
        content = read_bytes(models_dir / model / version / MANIFEST_FILE)
    except BundleError:
        return None
    return Pinned(version=version, sha256=hashlib.sha256(content).hexdigest())


def active_version(models_dir: Path, model: str) -> str | None:
    """Return the active version of a model; None where there is none."""
    found = read_standing(models_dir, model)
    return None if found is None or found.active is None else found.active.version


def load_active(models_dir: Path, model: str) -> Bundle | None:
    """Load the active bundle of a model, held to the hash with which it was activated; None without one."""
    found = read_standing(models_dir, model)
    return None if found is None or found.active is None else load_pinned(models_dir, model, found.active)


def load_pinned(models_dir: Path, model: str, pinned: Pinned) -> Bundle:
    """Load a version's bundle, held to its pin; BundleError where it is not what was pinned."""
    return load_version(models_dir, model, pinned.version, sha256=pinned.sha256 or None)


def _pinned(found: dict[str, Any]) -> Pinned:
    return Pinned(version=str(found["version"]), sha256=str(found["manifest_sha256"]))


def _pin_json(pinned: Pinned) -> dict[str, Any]:
    return {"version": pinned.version, "manifest_sha256": pinned.sha256}


def _split(found: dict[str, Any]) -> Split:
    arms = [
        Arm(name=str(one["name"]), pinned=_pinned(one), share=float(one["share"])) for one in found["arms"]
    ]
    return Split(
        trial=str(found["trial"]),
        arms=tuple(arms),
        control=str(found["control"]),
        sticky=str(found["sticky"]),
    )


def _split_json(split: Split) -> dict[str, Any]:
    return {
        "trial": split.trial,
        "control": split.control,
        "sticky": split.sticky,
        "arms": [{"name": one.name, "share": one.share, **_pin_json(one.pinned)} for one in split.arms],
    }
