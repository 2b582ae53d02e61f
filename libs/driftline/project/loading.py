"""Load a project folder and check it: every mistake is reported, with the file and what to do.

A mistake does not hide those after it: what a mistake takes away (a view, an event type) is left out, and what
names it is not blamed for that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from driftline.features import FeatureView
from driftline.project.code_lists import code_list_mistakes, with_codes
from driftline.project.declaration import EventType, ModelDeclaration, Project
from driftline.project.deprecations import deprecation_mistakes
from driftline.project.event_types import load_event_type
from driftline.project.mistakes import Mistake, ProjectError
from driftline.project.model_building import (
    NAMING_KEYS,
    KnownFeatures,
    build_model,
    freshness_mistakes,
    is_whole,
    model_mistakes,
    named_mistakes,
    request_name_mistakes,
)
from driftline.project.platform_events import PREDICTIONS, platform_events
from driftline.project.sections import ModelSection, ProjectFile
from driftline.project.tables import table_mistakes, with_tables
from driftline.project.view_loading import (
    DeclaredViews,
    entity_mistakes,
    joined_mistakes,
    load_views,
    view_mistakes,
)
from driftline.runtime.durations import parse_duration_us
from driftline.runtime.errors import ConfigurationError

FILE = "driftline.yaml"
_WORDING = {
    "extra_forbidden": "there is no such key; mend its spelling, or remove it",
    "missing": "is missing; add it",
}
#: Parts of a model that nothing else in the file leans on: without one the rest of the model can be looked at.
_ALONE = frozenset(
    {"description", "owner", "segments", "baseline", "monitor", "promotion", "breaker", "retrain"}
)
#: What stands in for the keys that a project must have, while the rest is looked at.
_STAND_INS: Mapping[str, Any] = {"name": "unnamed", "owner": "", "events": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """A project as far as it can be read, and its mistakes.

    Attributes
    ----------
    project
        Without what has mistakes that leave nothing of it; None where ``driftline.yaml`` holds no mapping.
    variables
        The variable that holds a view in the features file, by the view's name.
    broken_events, incomplete_models
        Event types that are declared and have mistakes; models that are, or that name features which are not there.
    modules
        The Python file of each model that is declared.
    features_whole
        Whether every statement of the features file could be run.
    """

    project: Project | None
    mistakes: tuple[Mistake, ...]
    features_file: Path | None = None
    variables: Mapping[str, str]
    broken_events: frozenset[str] = frozenset()
    modules: Mapping[str, Path] = field(default_factory=dict)
    incomplete_models: frozenset[str] = frozenset()
    features_whole: bool = True


def load_project(folder: Path) -> Project:
    """Load ``driftline.yaml``, the event schemas and the feature views of a project folder.

    Raises
    ------
    ProjectError
        A ConfigurationError with one line per mistake: the file, the place in it, what is wrong.
    """
    found = examine_project(folder)
    if found.mistakes or found.project is None:
        raise ProjectError(found.mistakes)
    return found.project


def examine_project(folder: Path) -> Examination:
    """Load a project folder past its mistakes, and return both; ConfigurationError where it is no project."""
    folder = folder.resolve()
    path = folder / FILE
    if not path.is_file():
        msg = f"{folder} is not a driftline project: it has no {FILE} (name one with --project)"
        raise ConfigurationError(msg)
    try:
        raw = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return Examination(project=None, mistakes=(_no_yaml(path, error),), variables={})
    declared, mistakes = _validated(path, raw)
    if declared is None:
        return Examination(project=None, mistakes=tuple(mistakes), variables={})
    mistakes += _history_mistakes(path, declared)
    event_types = _event_types(folder, declared, mistakes)
    broken = _names(raw, "events") - set(event_types)
    features = folder / declared.features
    found = load_views(features)
    mistakes += found.mistakes if features.is_file() else [_no_features(path, declared)]
    stored = _stored(found) if isinstance(raw.get("events"), dict) else {}
    for part, variable in stored.items():
        if part.source.event_type not in {*broken, PREDICTIONS}:
            mistakes += view_mistakes(features, part, variable, event_types)
            mistakes += table_mistakes(features, part, variable, event_types)
    entities = {view.entity.name: view.entity for view in found.views.values()}
    mistakes += [*entity_mistakes(features, found), *deprecation_mistakes(features, found)]
    mistakes += joined_mistakes(features, found)
    views = with_codes(with_tables(found.views, event_types), declared.code_lists)
    known = KnownFeatures(entities=entities, views=views, lost=found.lost)
    models = _models(path, declared, raw, known, mistakes)
    platform = platform_events(declared.name, models, folder)
    for part, variable in stored.items():
        if part.source.event_type in platform:
            mistakes += view_mistakes(features, part, variable, platform)
    mistakes += code_list_mistakes(path, declared.code_lists, event_types, frozenset(broken), views, models)
    mistakes += request_name_mistakes(path, models)
    mistakes += freshness_mistakes(path, declared.freshness, known)
    project = Project(
        name=declared.name,
        owner=declared.owner,
        description=declared.description,
        folder=folder,
        event_types=event_types,
        entities=entities,
        views=views,
        models=models,
        future_skew_us=parse_duration_us(declared.future_skew),
        max_jump_us=parse_duration_us(declared.max_jump) if declared.max_jump else None,
        history_module=folder / declared.history if declared.history else None,
        refuse_past_deprecations=declared.refuse_past_deprecations,
        freshness={
            view: parse_duration_us(target)
            for view, target in declared.freshness.items()
            if view in found.views
        },
        platform_events=platform,
    )
    return Examination(
        project=project,
        mistakes=tuple(mistakes),
        features_file=features,
        variables=found.variables,
        broken_events=frozenset(broken),
        modules=_modules(folder, raw),
        incomplete_models=frozenset(_names(raw, "models") - _whole(models, declared)),
        features_whole=found.whole,
    )


def _stored(found: DeclaredViews) -> dict[FeatureView, str]:
    """Return all that is stored of the views, with the variable that declares it."""
    stored: dict[FeatureView, str] = {}
    for view in found.views.values():
        for part in view.stored:
            stored.setdefault(part, found.variables.get(part.name, found.variables[view.name]))
    return stored


def _no_yaml(path: Path, error: Exception) -> Mistake:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Mistake(path=path, text=f"this is no YAML: {error}")
    what = ", ".join(filter(None, (error.context, error.problem)))
    line = None if error.problem_mark is None else error.problem_mark.line + 1
    return Mistake(path=path, text=f"this is no YAML: {what}", line=line)


def _validated(path: Path, raw: Any) -> tuple[ProjectFile | None, list[Mistake]]:
    """Return the file without its sections that have mistakes, and those mistakes."""
    mistakes: list[Mistake] = []
    rest = raw
    while True:
        try:
            return ProjectFile.model_validate(rest), mistakes
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
        mistakes += [_mistake(path, problem) for problem in problems]
        places = [problem["loc"] for problem in problems]
        smaller = rest
        for place in places if isinstance(rest, dict) and () not in places else ():
            smaller = _without(smaller, place)
        if smaller == rest:
            return None, mistakes
        rest = smaller


def _mistake(path: Path, problem: Mapping[str, Any]) -> Mistake:
    keys = tuple(part for part in problem["loc"] if part != "[key]")
    what = _WORDING.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return Mistake(path=path, text=f"{'.'.join(map(str, keys)) or 'the file'}: {what}", keys=keys)


def _without(raw: dict[Any, Any], place: tuple[int | str, ...]) -> dict[Any, Any]:
    """Return the file without the part of a place: of a model what stands alone, an event type, a model, a section."""
    section, *way = place
    if section == "models" and len(way) > 1 and way[0] in raw[section] and way[1] in _ALONE:
        model = {key: one for key, one in raw[section][way[0]].items() if key != way[1]}
        return {**raw, section: {**raw[section], way[0]: model}}
    if section in {"events", "models"} and way:
        members = {name: one for name, one in raw[section].items() if name != way[0]}
        return {**raw, section: members}
    rest = {name: one for name, one in raw.items() if name != section}
    return {**rest, section: _STAND_INS[str(section)]} if section in _STAND_INS else rest


def _names(raw: Mapping[str, Any], section: str) -> set[str]:
    members = raw.get(section)
    return {str(name) for name in members} if isinstance(members, dict) else set()


def _modules(folder: Path, raw: Mapping[str, Any]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in _names(raw, "models"):
        section = raw["models"].get(name)
        if isinstance(section, dict):
            module = section.get("module", ModelSection.model_fields["module"].default)
            found[name] = folder / str(module)
    return found


def _event_types(folder: Path, declared: ProjectFile, mistakes: list[Mistake]) -> dict[str, EventType]:
    found: dict[str, EventType] = {}
    for name, spec in declared.events.items():
        try:
            found[name] = load_event_type(folder, name, spec)
        except ProjectError as error:
            mistakes += error.mistakes
    return found


def _models(
    path: Path, declared: ProjectFile, raw: Mapping[str, Any], known: KnownFeatures, mistakes: list[Mistake]
) -> dict[str, ModelDeclaration]:
    found: dict[str, ModelDeclaration] = {}
    for name, spec in declared.models.items():
        model = build_model(path, name, spec, declared.owner, known, declared.code_lists)
        named = {"entities": spec.entities, "views": spec.views}
        mistakes += [*named_mistakes(path, name, named, known), *model_mistakes(path, model, spec)]
        found[name] = model
    for name in sorted(_names(raw, "models") - set(found)):
        section = raw["models"].get(name)
        named = _named(section) if isinstance(section, dict) else {}
        if len(named) == len(NAMING_KEYS):
            mistakes += named_mistakes(path, name, named, known)
    return found


def _whole(models: Mapping[str, ModelDeclaration], declared: ProjectFile) -> set[str]:
    return {name for name, model in models.items() if is_whole(model, declared.models[name])}


def _named(section: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the lists of names in a section that has mistakes, where they are lists of names."""
    return {
        key: section[key]
        for key in NAMING_KEYS
        if isinstance(section.get(key), list) and all(isinstance(one, str) for one in section[key])
    }


def _no_features(path: Path, declared: ProjectFile) -> Mistake:
    text = f"features: {declared.features} does not exist; mend its name, or write it"
    return Mistake(path=path, text=text, keys=("features",))


def _history_mistakes(path: Path, declared: ProjectFile) -> Iterator[Mistake]:
    """Yield the models that are to be trained anew without a past to learn from."""
    for name, model in declared.models.items():
        if declared.history is None and model.retrain.model_fields_set:
            text = (
                f"models.{name}.retrain: the project has no `history:`, so nothing can be trained; "
                "name its Python file, or remove the section"
            )
            yield Mistake(path=path, text=text, keys=("models", name, "retrain"))
