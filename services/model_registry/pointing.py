"""From a model's history to what its predictors are to load."""

from pathlib import Path

from driftline.models.lifecycle import ModelHistory, State
from driftline.models.standing import MOST_PRIORS, Pinned, Standing, pin


def standing_of(history: ModelHistory, models_dir: Path, before: Standing | None) -> Standing:
    """Return which versions serve: the champion, and to fall back on the former champions, the newest first.

    A former champion is one that served and was neither rolled back nor pulled. Versions that are named already keep
    the hash that they were held to; others are held to the manifest that they have now.
    """
    known = {} if before is None else before.pins

    def pinned(version: str) -> Pinned | None:
        if version in known:
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
    )
