"""Two versions of a view, from one state of a project or from two, held against each other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from driftline.checking.places import located
from driftline.features import FeatureView
from driftline.features.differences import Difference, view_differences
from driftline.project.loading import Examination
from driftline.project.mistakes import ProjectError
from driftline.runtime.errors import ConfigurationError

_REF = re.compile(r"[a-z][a-z0-9_]*@[1-9][0-9]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewComparison:
    """Two versions of a view, what differs, and the models that read each of them, by the view's reference."""

    before: FeatureView
    after: FeatureView
    differences: tuple[Difference, ...]
    models: Mapping[str, tuple[str, ...]]


def compare_views(
    project: Examination, before: str, after: str, other: Examination | None = None
) -> ViewComparison:
    """Compare two views named like ``origin_delays@1``.

    ``before`` is looked for in the other state first, ``after`` in the project first.

    Raises
    ------
    ConfigurationError
        What is named is no reference of a view, or in neither: the message names the versions there are.
    """
    states = [project] if other is None else [project, other]
    for state in states:
        if state.project is None:
            raise ProjectError(map(located, state.mistakes))
    old = _view(before, states[::-1])
    new = _view(after, states)
    models = {ref: _readers(ref, states) for ref in (before, after)}
    return ViewComparison(before=old, after=new, differences=view_differences(old, new), models=models)


def _view(ref: str, states: list[Examination]) -> FeatureView:
    if not _REF.fullmatch(ref):
        raise ConfigurationError(f"write a view and its version, like origin_delays@1, not {ref!r}")
    views = [view for state in states if state.project for view in state.project.views.values()]
    for view in views:
        if view.ref == ref:
            return view
    name = ref.partition("@")[0]
    hidden = [located(mistake) for state in states if not state.features_whole for mistake in state.mistakes]
    if hidden:
        raise ProjectError(hidden)
    there = sorted({view.ref for view in views if view.name == name} or {view.ref for view in views})
    raise ConfigurationError(
        f"there is no feature view {ref}; there are {', '.join(there) or 'none'}. Name with --against a git revision, "
        "or a folder, that has it"
    )


def _readers(ref: str, states: list[Examination]) -> tuple[str, ...]:
    """Return the models that read a version of a view in any of the states."""
    found = [
        model.name
        for state in states
        if state.project
        for model in state.project.models.values()
        if ref in {view.ref for view in model.views}
    ]
    return tuple(dict.fromkeys(found))
