"""Load a project folder and check it: every mistake is reported, with the file and what to do."""

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from driftline.features import FeatureView
from driftline.project.declaration import (
    DecisionRule,
    EventType,
    InputField,
    InputType,
    ModelDeclaration,
    Project,
)
from driftline.runtime.durations import parse_duration_us
from driftline.runtime.errors import ConfigurationError

_NAME = r"^[a-z][a-z0-9_]{0,62}$"
_NUMERIC = {"int", "long", "float", "double"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _EventType(_Strict):
    schema_: str = Field(alias="schema")
    key: str
    event_time: str
    event_id: str = "event_id"
    partitions: int | None = Field(default=None, ge=1, le=1024)


class _Input(_Strict):
    type: InputType
    description: str = ""


class _Decision(_Strict):
    threshold: float
    above: str
    below: str


class _Model(_Strict):
    description: str = ""
    owner: str = ""
    module: str = "model.py"
    entities: list[str]
    views: list[str]
    inputs: dict[str, _Input] = {}
    decision: _Decision


class _File(_Strict):
    name: str = Field(pattern=_NAME)
    owner: str
    description: str = ""
    features: str = "features.py"
    history: str | None = None
    future_skew: str = "5m"
    max_jump: str | None = None
    events: dict[str, _EventType]
    models: dict[str, _Model] = {}


def load_project(folder: Path) -> Project:
    """Load ``driftline.yaml``, the event schemas and the feature views of a project folder.

    Raises
    ------
    ConfigurationError
        With one line per mistake: the file, the place in it, what is wrong.
    """
    folder = folder.resolve()
    path = folder / "driftline.yaml"
    if not path.is_file():
        msg = f"{folder} is not a driftline project: it has no driftline.yaml (name one with --project)"
        raise ConfigurationError(msg)
    try:
        declared = _File.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: {_explain(error)}") from error
    event_types = {name: _event_type(folder, name, spec) for name, spec in declared.events.items()}
    views = _views(folder / declared.features, event_types)
    entities = {view.entity.name: view.entity for view in views.values()}
    models = {
        name: _model(path, name, spec, declared.owner, entities=entities, views=views)
        for name, spec in declared.models.items()
    }
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
    )
    _check_request_names(path, project)
    return project


def load_module(path: Path) -> ModuleType:
    """Import a project's Python file under a name of its own, its folder importable while it loads."""
    name = f"driftline_project_{path.parent.name}_{path.stem}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"{path} does not exist")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (ValueError, TypeError) as error:
        del sys.modules[name]
        raise ConfigurationError(f"{path}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _explain(error: ValidationError | yaml.YAMLError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        )
    return str(error)


def field_type(schema: Mapping[str, Any], name: str) -> Any:
    """Return the Avro type of a record's field without ``null``; None where there is no such field."""
    for field in schema["fields"]:
        if field["name"] == name:
            kind = field["type"]
            if isinstance(kind, list):
                kinds = [branch for branch in kind if branch != "null"]
                return kinds[0] if len(kinds) == 1 else kinds
            return kind
    return None


def _event_type(folder: Path, name: str, spec: _EventType) -> EventType:
    path = folder / spec.schema_
    try:
        schema = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigurationError(f"{path}: event type {name!r} has no readable schema: {error}") from error
    for role, field in (("key", spec.key), ("event_id", spec.event_id)):
        kind = field_type(schema, field)
        if (kind.get("type") if isinstance(kind, dict) else kind) != "string":
            raise ConfigurationError(
                f"{path}: {role} {field!r} of event type {name!r} must be a string field"
            )
    kind = field_type(schema, spec.event_time)
    if not isinstance(kind, dict) or kind.get("logicalType") != "timestamp-micros":
        msg = (
            f"{path}: event time {spec.event_time!r} of event type {name!r} must be a timestamp-micros field"
        )
        raise ConfigurationError(msg)
    return EventType(
        name=name,
        schema=schema,
        schema_path=path,
        key=spec.key,
        event_time=spec.event_time,
        event_id=spec.event_id,
        partitions=spec.partitions,
    )


def _views(path: Path, event_types: Mapping[str, EventType]) -> dict[str, FeatureView]:
    module = load_module(path)
    views: dict[str, FeatureView] = {}
    for value in vars(module).values():
        if not isinstance(value, FeatureView):
            continue
        if value.name in views and views[value.name] != value:
            raise ConfigurationError(f"{path}: two feature views are named {value.name!r}")
        _check_view(path, value, event_types)
        views[value.name] = value
    return views


def _check_view(path: Path, view: FeatureView, event_types: Mapping[str, EventType]) -> None:
    event_type = event_types.get(view.source.event_type)
    if event_type is None:
        msg = (
            f"{path}: feature view {view.name!r} reads event type {view.source.event_type!r}, which "
            f"driftline.yaml does not declare; it declares {', '.join(sorted(event_types))}"
        )
        raise ConfigurationError(msg)
    if view.source.event_time != event_type.event_time:
        msg = (
            f"{path}: feature view {view.name!r} takes {view.source.event_time!r} as event time, but event "
            f"type {event_type.name!r} has {event_type.event_time!r}"
        )
        raise ConfigurationError(msg)
    if field_type(event_type.schema, view.source.entity_field) != "string":
        msg = f"{path}: {view.source.entity_field!r}, the entity of {view.name!r}, is no string field of {event_type.schema_path.name}"
        raise ConfigurationError(msg)
    for feature in view.features:
        if not feature.field:
            continue
        kind = field_type(event_type.schema, feature.field)
        wanted = {"boolean"} if feature.aggregate == "rate" else _NUMERIC | {"boolean"}
        if not isinstance(kind, str) or kind not in wanted:
            msg = (
                f"{path}: feature {feature.name!r} of {view.name!r} needs a field {feature.field!r} of type "
                f"{' or '.join(sorted(wanted))} in {event_type.schema_path.name}, found {kind or 'no such field'}"
            )
            raise ConfigurationError(msg)


def _model(
    path: Path,
    name: str,
    spec: _Model,
    owner: str,
    *,
    entities: Mapping[str, Any],
    views: Mapping[str, FeatureView],
) -> ModelDeclaration:
    for kind, wanted, known in (("entity", spec.entities, entities), ("feature view", spec.views, views)):
        for item in wanted:
            if item not in known:
                msg = f"{path}: model {name!r} names {kind} {item!r}, known are: {', '.join(sorted(known)) or 'none'}"
                raise ConfigurationError(msg)
    for item in spec.views:
        if views[item].entity.name not in spec.entities:
            msg = f"{path}: model {name!r} reads {item!r}, so its entities must include {views[item].entity.name!r}"
            raise ConfigurationError(msg)
    return ModelDeclaration(
        name=name,
        description=spec.description,
        owner=spec.owner or owner,
        entities=tuple(entities[item] for item in spec.entities),
        views=tuple(views[item] for item in spec.views),
        inputs=tuple(
            InputField(name=field, type=given.type, description=given.description)
            for field, given in spec.inputs.items()
        ),
        decision=DecisionRule(**spec.decision.model_dump()),
        module=path.parent / spec.module,
    )


def _check_request_names(path: Path, project: Project) -> None:
    kinds: dict[str, str] = {}
    for model in project.models.values():
        for name, kind in [(entity.name, "entity") for entity in model.entities] + [
            (field.name, f"{field.type} input") for field in model.inputs
        ]:
            if kinds.setdefault(name, kind) != kind:
                msg = f"{path}: {name!r} is declared as {kinds[name]} and as {kind}; one name has one meaning"
                raise ConfigurationError(msg)
