"""From a model's history to what its predictors are to load."""

from collections.abc import Callable
from pathlib import Path

from driftline.models.lifecycle import ModelHistory, State
from driftline.models.standing import MOST_PRIORS, Arm, Pinned, Split, Standing, pin


def standing_of(history: ModelHistory, models_dir: Path, before: Standing | None) -> Standing:
    """Return which versions serve: the champion, the arms of a trial, and to fall back on the former champions.

    A former champion is one that served and was neither rolled back nor pulled; the newest comes first. Versions that are named already keep
    the hash that they were held to; others are held to the manifest that they have now.
    """
    known = {} if before is None else before.pins

    def pinned(version: str) -> Pinned | None:
        if known.get(version):
            return Pinned(version=version, sha256=known[version])
        return pin(models_dir, history.model, version)

    pulled = set(history.in_state(State.PULLED))
    withdrawn = ""
    if history.withdrawal is not None:
        version = history.withdrawal.version or ""
        pulled.add(version)
        withdrawn = (
            f"{history.model}@{version} was pulled by {history.withdrawal.by}: {history.withdrawal.reason}"
        )
    serving = history.serving
    formers = history.formers[::-1][:MOST_PRIORS]
    return Standing(
        active=None if serving is None else pinned(serving) or Pinned(version=serving, sha256=""),
        priors=tuple(one for one in map(pinned, formers) if one is not None) if serving else (),
        reign=history.reigns[-1].event_id if history.reigns else "",
        withdrawn=withdrawn,
        pulled=tuple(sorted(pulled)),
        split=None if serving is None else _split(history, pinned),
    )


def _split(history: ModelHistory, pinned: Callable[[str], Pinned | None]) -> Split | None:
    """Return the arms of the trial that runs. One whose bundle cannot be read is named too: predictors tell of it."""
    trial = history.trial
    if trial is None:
        return None
    arms = [
        Arm(
            name=one.name,
            pinned=pinned(one.version) or Pinned(version=one.version, sha256=""),
            share=one.share,
        )
        for one in trial.arms
    ]
    return Split(trial=trial.name, arms=tuple(arms), control=trial.control, sticky=trial.sticky)
