"""Load a project folder and check it: every mistake is reported, with the file and what to do."""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from driftline.alerts.rules import AlertRules
from driftline.features import Entity, FeatureView
from driftline.project.condition_fields import condition_mistakes
from driftline.project.declaration import (
    DecisionRule,
    EventType,
    InputField,
    InputType,
    LabelRule,
    ModelDeclaration,
    MonitorRule,
    Never,
    Payoff,
    Project,
)
from driftline.project.life_sections import Duration, PromotionSection, RetrainSection
from driftline.project.modules import load_module
from driftline.runtime.durations import parse_duration_us
from driftline.runtime.errors import ConfigurationError

_NAME = r"^[a-z][a-z0-9_]{0,62}$"
#: Fields that every prediction record has, so that no entity or input may have their names.
_RESERVED = frozenset(
    [
        "request_id",
        "model",
        "model_version",
        "channel",
        "status",
        "score",
        "decision",
        "error",
        "requested_at",
        "event_time",
        "predicted_at",
        "duration_us",
        "caller",
        "feature_views",
        "label",
        "label_known_at",
        "label_id",
        "kind",
        "previous_label",
        "log_loss",
        "squared_error",
        "value",
        "known_at",
    ]
)
#: Streams of the platform, so that no event type may have their names.
_STREAMS = frozenset(
    {
        *(
            "predictions",
            "prediction-requests",
            "labels",
            "outcomes",
            "profiles",
            "window-reports",
            "drift-signals",
        ),
        *("retrain-requests", "model-events", "alerts", "alert-inputs", "dead-letters"),
    }
)
_UNKNOWN_KEY = "there is no such key; mend its spelling, or remove it"
_NUMERIC = {"int", "long", "float", "double"}


_Name = Annotated[str, StringConstraints(pattern=_NAME)]
_T = TypeVar("_T")
_V = TypeVar("_V")


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
    identifier: bool = False


class _Label(_Strict):
    horizon: Duration
    key: str | None = None
    never: Never = Never.EXCLUDE
    description: str = ""


class _Payoff(_Strict):
    positive: float
    negative: float


class _Monitor(_Strict):
    window: Duration = "1d"
    grace: Duration = "1h"
    damage_windows: int = Field(default=7, ge=1, le=60)
    least_windows: int = Field(default=5, ge=1, le=60)
    alert_log_loss: float | None = 0.02
    retrain_log_loss: float | None = 0.04
    alert_value: float | None = None
    retrain_value: float | None = None
    quiet_windows: int = Field(default=2, ge=1, le=60)
    ignore: tuple[str, ...] = ()


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
    inputs: dict[_Name, _Input] = {}
    decision: _Decision
    label: _Label | None = None
    value: dict[str, _Payoff] = {}
    segments: list[str] = []
    baseline: str | None = None
    monitor: _Monitor = _Monitor()
    promotion: PromotionSection = PromotionSection()
    retrain: RetrainSection = RetrainSection()


class _File(_Strict):
    name: _Name
    owner: str
    description: str = ""
    features: str = "features.py"
    history: str | None = None
    future_skew: Duration = "5m"
    max_jump: Duration | None = None
    alerts: AlertRules = Field(default_factory=AlertRules)
    events: dict[_Name, _EventType]
    models: dict[_Name, _Model] = {}


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
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(_explain(path, error)) from error
    _check_history(path, declared)
    event_types = _each(
        lambda item: _event_type(folder, item[0], item[1]), declared.events.items(), lambda found: found.name
    )
    views = _views(folder / declared.features, event_types)
    entities = _entities(folder / declared.features, views.values())
    models = _each(
        lambda item: _model(path, item[0], item[1], declared.owner, entities=entities, views=views),
        declared.models.items(),
        lambda found: found.name,
    )
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


def _each(check: Callable[[_T], _V], items: Iterable[_T], name: Callable[[_V], str]) -> dict[str, _V]:
    """Check all items and name the results; raise all their errors as one, a line each."""
    found: dict[str, _V] = {}
    problems: list[str] = []
    for item in items:
        try:
            value = check(item)
        except ConfigurationError as error:
            problems.append(str(error))
        else:
            found[name(value)] = value
    if problems:
        raise ConfigurationError("\n".join(problems))
    return found


def _explain(path: Path, error: ValidationError | yaml.YAMLError | UnicodeDecodeError) -> str:
    if isinstance(error, ValidationError):
        return "\n".join(
            f"{path}: {'.'.join(str(part) for part in problem['loc']) or 'the file'}: "
            + (_UNKNOWN_KEY if problem["type"] == "extra_forbidden" else problem["msg"])
            for problem in error.errors()
        )
    return f"{path}: {error}"


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
    if not isinstance(schema, dict) or schema.get("type") != "record" or not schema.get("fields"):
        raise ConfigurationError(f"{path}: the schema of event type {name!r} must be a record with fields")
    if name in _STREAMS:
        raise ConfigurationError(
            f"{folder / 'driftline.yaml'}: event type {name!r} has the name of a platform stream"
        )
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
    declared: list[FeatureView] = []
    for value in vars(module).values():
        if not isinstance(value, FeatureView) or value in declared:
            continue
        if value.name in {view.name for view in declared}:
            raise ConfigurationError(f"{path}: two feature views are named {value.name!r}")
        declared.append(value)

    def checked(view: FeatureView) -> FeatureView:
        _check_view(path, view, event_types)
        return view

    return _each(checked, declared, lambda view: view.name)


def _entities(path: Path, views: Iterable[FeatureView]) -> dict[str, Entity]:
    """Return the views' entities by name; raise ConfigurationError where one name has two keys."""
    entities: dict[str, Entity] = {}
    for view in views:
        known = entities.setdefault(view.entity.name, view.entity)
        if known.keys != view.entity.keys:
            msg = (
                f"{path}: entity {known.name!r} is made of {', '.join(known.keys)} in one view and of "
                f"{', '.join(view.entity.keys)} in {view.name!r}; declare it once"
            )
            raise ConfigurationError(msg)
    return entities


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
    for field in view.source.entity_fields:
        if field_type(event_type.schema, field) != "string":
            msg = f"{path}: {field!r}, the entity of {view.name!r}, is no string field of {event_type.schema_path.name}"
            raise ConfigurationError(msg)
    conditions = [(f"the condition of {view.name!r}", view.where)]
    conditions += [
        (f"the condition of {one.name!r} of {view.name!r}", one.condition) for one in view.aggregated
    ]
    for what, condition in conditions:
        for _, mistake in condition_mistakes(condition, partial(field_type, event_type.schema)):
            raise ConfigurationError(f"{path}: {what} {mistake} in {event_type.schema_path.name}")
    for feature in view.aggregated:
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
    declared = ModelDeclaration(
        name=name,
        description=spec.description,
        owner=spec.owner or owner,
        entities=tuple(entities[item] for item in spec.entities),
        views=tuple(views[item] for item in spec.views),
        inputs=tuple(
            InputField(
                name=field, type=given.type, description=given.description, identifier=given.identifier
            )
            for field, given in spec.inputs.items()
        ),
        decision=DecisionRule(**spec.decision.model_dump()),
        module=path.parent / spec.module,
        label=_label(spec.label),
        value={decision: Payoff(**cells.model_dump()) for decision, cells in spec.value.items()},
        segments=tuple(spec.segments),
        baseline=spec.baseline,
        monitor=_monitor(spec.monitor),
        promotion=spec.promotion.rule(),
        retrain=spec.retrain.rule(),
    )
    _check_loop(path, declared)
    _check_retrain(path, declared)
    return declared


def _label(spec: _Label | None) -> LabelRule | None:
    if spec is None:
        return None
    return LabelRule(
        horizon_us=parse_duration_us(spec.horizon),
        key=spec.key,
        never=spec.never,
        description=spec.description,
    )


def _monitor(spec: _Monitor) -> MonitorRule:
    plain = spec.model_dump(exclude={"window", "grace"})
    return MonitorRule(
        window_us=parse_duration_us(spec.window), grace_us=parse_duration_us(spec.grace), **plain
    )


def _check_loop(path: Path, model: ModelDeclaration) -> None:
    """Check what a model says of its labels, its value, its segments and its baseline against the rest of it."""
    where = f"{path}: model {model.name!r}"
    identifiers = [one.name for one in model.inputs if one.identifier]
    for one in model.inputs:
        if one.identifier and one.type is not InputType.STRING:
            raise ConfigurationError(f"{where}: the identifier {one.name!r} must be of type string")
    if model.label is not None and model.label.key is not None and model.label.key not in identifiers:
        raise ConfigurationError(
            f"{where}: labels name {model.label.key!r}, so it must be an input with `identifier: true`"
        )
    decisions = {model.decision.above, model.decision.below}
    if model.value and set(model.value) != decisions:
        raise ConfigurationError(
            f"{where}: value must have an entry for each decision, {' and '.join(sorted(decisions))}"
        )
    for segment in model.segments:
        if segment not in model.categorical_columns:
            raise ConfigurationError(
                f"{where}: segment {segment!r} is neither an entity nor a text input of the model; "
                f"those are {', '.join(model.categorical_columns)}"
            )
    for column in model.monitor.ignore:
        if column not in (*model.numeric_columns, *model.categorical_columns):
            raise ConfigurationError(f"{where}: monitor ignores {column!r}, which is no column of it")
    if model.baseline is not None and model.baseline not in model.numeric_columns:
        raise ConfigurationError(
            f"{where}: baseline {model.baseline!r} is no feature column (view__feature) of it"
        )


def _check_retrain(path: Path, model: ModelDeclaration) -> None:
    """Check that what asks for a retrain can be measured."""
    where = f"{path}: models.{model.name}.retrain"
    rule = model.retrain
    measured = {
        "volume": rule.volume,
        "target_log_loss": rule.target_log_loss,
        "target_value": rule.target_value,
    }
    asked = [name for name, limit in measured.items() if limit is not None]
    if asked and model.label is None:
        raise ConfigurationError(
            f"{where}.{asked[0]}: nothing comes back to measure it on; declare the model's `label:`, or remove it"
        )
    if rule.target_value is not None and not model.value:
        raise ConfigurationError(
            f"{where}.target_value: the model declares no value; declare its `value:`, or remove it"
        )


def _check_history(path: Path, declared: _File) -> None:
    """Check that a model which is to be trained anew has a past to learn from."""
    for name, model in declared.models.items():
        if declared.history is None and model.retrain.model_fields_set:
            raise ConfigurationError(
                f"{path}: models.{name}.retrain: the project has no `history:`, so nothing can be trained; "
                "name its Python file, or remove the section"
            )


def _check_request_names(path: Path, project: Project) -> None:
    kinds: dict[str, str] = {}
    for model in project.models.values():
        for name, kind in [(key, "entity") for key in model.entity_keys] + [
            (field.name, f"{field.type} input") for field in model.inputs
        ]:
            if name in _RESERVED:
                msg = f"{path}: {kind} {name!r} of model {model.name!r} has the name of a field that every prediction has"
                raise ConfigurationError(msg)
            if kinds.setdefault(name, kind) != kind:
                msg = f"{path}: {name!r} is declared as {kinds[name]} and as {kind}; one name has one meaning"
                raise ConfigurationError(msg)
