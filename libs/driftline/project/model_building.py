"""What ``driftline.yaml`` says of a model, checked against the features, and made a declaration."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from driftline.features import Entity, FeatureView, OnStale
from driftline.project.code_lists import codes_of_input
from driftline.project.declaration import (
    DecisionRule,
    InputField,
    InputType,
    LabelRule,
    ModelDeclaration,
    MonitorRule,
    Payoff,
    ServiceLevelRule,
)
from driftline.project.mistakes import Mistake, meant
from driftline.project.sections import (
    CodeListSection,
    LabelSection,
    ModelSection,
    MonitorSection,
    ServiceLevelSection,
)
from driftline.runtime.durations import parse_duration_us

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
        "degraded",
        "arm",
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

#: The keys under which a model names features.
NAMING_KEYS = ("entities", "views")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFeatures:
    """What models may name.

    ``lost`` holds the texts in declarations with mistakes, which may be names too (None: any name may be).
    """

    entities: Mapping[str, Entity]
    views: Mapping[str, FeatureView]
    lost: frozenset[str] | None = frozenset()

    def may_have(self, name: str) -> bool:
        """Whether a name that is not known may be one of a declaration with a mistake."""
        return self.lost is None or name in self.lost

    @property
    def refs(self) -> tuple[tuple[str, str, Mapping[str, object]], ...]:
        """The lists in which a model names features: key, kind, what there is."""
        return (("entities", "entity", self.entities), ("views", "feature view", self.views))


def named_mistakes(
    path: Path, name: str, named: Mapping[str, list[str]], known: KnownFeatures
) -> Iterator[Mistake]:
    """Yield what is wrong with the entities and views that a model names."""
    for key, kind, there in known.refs:
        for index, item in enumerate(named[key]):
            if item not in there and not known.may_have(item):
                text = (
                    f"model {name!r} names {kind} {item!r}, known are: {', '.join(sorted(there)) or 'none'}"
                    f"{meant(item, {*there, *(known.lost or ())})}"
                )
                yield Mistake(path=path, text=text, keys=("models", name, key, index))
    for index, item in enumerate(named["views"]):
        if item in known.views and known.views[item].entity.name not in named["entities"]:
            entity = known.views[item].entity.name
            text = f"model {name!r} reads {item!r}, so its entities must include {entity!r}"
            yield Mistake(path=path, text=text, keys=("models", name, "views", index))


def freshness_mistakes(path: Path, targets: Mapping[str, str], known: KnownFeatures) -> Iterator[Mistake]:
    """Yield the views that have a target of freshness and are not there."""
    for name in targets:
        if name not in known.views and not known.may_have(name):
            text = (
                f"freshness names feature view {name!r}, known are: {', '.join(sorted(known.views)) or 'none'}"
                f"{meant(name, {*known.views, *(known.lost or ())})}"
            )
            yield Mistake(path=path, text=text, keys=("freshness", name))


def build_model(
    path: Path,
    name: str,
    spec: ModelSection,
    owner: str,
    known: KnownFeatures,
    code_lists: Mapping[str, CodeListSection],
) -> ModelDeclaration:
    """Return a model's declaration, without the entities and views that there are none of."""
    return ModelDeclaration(
        name=name,
        description=spec.description,
        owner=spec.owner or owner,
        entities=tuple(known.entities[item] for item in spec.entities if item in known.entities),
        views=tuple(known.views[item] for item in spec.views if item in known.views),
        inputs=tuple(
            InputField(
                name=field,
                type=given.type,
                description=given.description,
                identifier=given.identifier,
                codes=codes_of_input(field, code_lists),
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
        breaker=spec.breaker.rule(),
        retrain=spec.retrain.rule(),
        service_levels=_service_levels(spec.service_levels),
        store=spec.store.rule(),
    )


def model_mistakes(path: Path, model: ModelDeclaration, spec: ModelSection) -> Iterator[Mistake]:
    """Yield what a model says of its labels, value, columns and retraining that does not fit the rest of it."""
    yield from _label_mistakes(path, model)
    if is_whole(model, spec):
        yield from _column_mistakes(path, model)
        yield from _canary_mistakes(path, model)
    if model.baseline is not None and (is_whole(model, spec) or _names_view_of(model, model.baseline)):
        yield from _baseline_mistakes(path, model, model.baseline)
    yield from _retrain_mistakes(path, model)
    yield from _store_mistakes(path, model)


def is_whole(model: ModelDeclaration, spec: ModelSection) -> bool:
    """Whether all the features that a model names are there."""
    return (len(model.entities), len(model.views)) == (len(spec.entities), len(spec.views))


def _label(spec: LabelSection | None) -> LabelRule | None:
    if spec is None:
        return None
    return LabelRule(
        horizon_us=parse_duration_us(spec.horizon),
        key=spec.key,
        never=spec.never,
        description=spec.description,
    )


def _service_levels(spec: ServiceLevelSection | None) -> ServiceLevelRule | None:
    if spec is None:
        return None
    return ServiceLevelRule(
        latency_us=parse_duration_us(spec.latency),
        latency_share=spec.latency_share,
        availability=spec.availability,
    )


def _monitor(spec: MonitorSection) -> MonitorRule:
    plain = spec.model_dump(exclude={"window", "grace"})
    return MonitorRule(
        window_us=parse_duration_us(spec.window), grace_us=parse_duration_us(spec.grace), **plain
    )


def _label_mistakes(path: Path, model: ModelDeclaration) -> Iterator[Mistake]:
    where = f"model {model.name!r}"
    keys = ("models", model.name)
    identifiers = [one.name for one in model.inputs if one.identifier]
    for one in model.inputs:
        if one.identifier and one.type is not InputType.STRING:
            text = f"{where}: the identifier {one.name!r} must be of type string"
            yield Mistake(path=path, text=text, keys=(*keys, "inputs", one.name))
    if model.label is not None and model.label.key is not None and model.label.key not in identifiers:
        text = f"{where}: labels name {model.label.key!r}, so it must be an input with `identifier: true`"
        yield Mistake(path=path, text=text, keys=(*keys, "label", "key"))
    decisions = {model.decision.above, model.decision.below}
    if model.value and set(model.value) != decisions:
        text = f"{where}: value must have an entry for each decision, {' and '.join(sorted(decisions))}"
        yield Mistake(path=path, text=text, keys=(*keys, "value"))


def _column_mistakes(path: Path, model: ModelDeclaration) -> Iterator[Mistake]:
    where = f"model {model.name!r}"
    keys = ("models", model.name)
    for index, segment in enumerate(model.segments):
        if segment not in model.categorical_columns:
            text = (
                f"{where}: segment {segment!r} is neither an entity nor a text input of the model; "
                f"those are {', '.join(model.categorical_columns)}"
            )
            yield Mistake(path=path, text=text, keys=(*keys, "segments", index))
    columns = (*model.numeric_columns, *model.categorical_columns)
    for index, column in enumerate(model.monitor.ignore):
        if column not in columns:
            text = f"{where}: monitor ignores {column!r}, which is no column of it{meant(column, columns)}"
            yield Mistake(path=path, text=text, keys=(*keys, "monitor", "ignore", index))


def _canary_mistakes(path: Path, model: ModelDeclaration) -> Iterator[Mistake]:
    rule = model.promotion.canary
    names = [entity.name for entity in model.entities]
    if rule is not None and rule.sticky and rule.sticky not in names:
        text = (
            f"model {model.name!r}: sticky {rule.sticky!r} is no entity of the model; those are {', '.join(names)}"
            f"{meant(rule.sticky, names)}"
        )
        yield Mistake(path=path, text=text, keys=("models", model.name, "promotion", "canary", "sticky"))


def _names_view_of(model: ModelDeclaration, column: str) -> bool:
    """Whether a column is named like one of the views that are there, so that it can be judged without the others."""
    return column.partition("__")[0] in {view.name for view in model.views}


def _baseline_mistakes(path: Path, model: ModelDeclaration, baseline: str) -> Iterator[Mistake]:
    if baseline not in model.numeric_columns:
        text = (
            f"model {model.name!r}: baseline {baseline!r} is no feature column (view__feature) of it"
            f"{meant(baseline, model.numeric_columns)}"
        )
        yield Mistake(path=path, text=text, keys=("models", model.name, "baseline"))


def _retrain_mistakes(path: Path, model: ModelDeclaration) -> Iterator[Mistake]:
    """Yield what asks for a retrain and cannot be measured."""
    where = f"models.{model.name}.retrain"
    keys = ("models", model.name, "retrain")
    rule = model.retrain
    measured = {
        "volume": rule.volume,
        "target_log_loss": rule.target_log_loss,
        "target_value": rule.target_value,
    }
    asked = [name for name, limit in measured.items() if limit is not None]
    if asked and model.label is None:
        text = (
            f"{where}.{asked[0]}: nothing comes back to measure it on; declare the model's `label:`, or "
            "remove it"
        )
        yield Mistake(path=path, text=text, keys=(*keys, asked[0]))
    if rule.target_value is not None and not model.value:
        text = f"{where}.target_value: the model declares no value; declare its `value:`, or remove it"
        yield Mistake(path=path, text=text, keys=(*keys, "target_value"))


def _store_mistakes(path: Path, model: ModelDeclaration) -> Iterator[Mistake]:
    """Yield the views that must not be served when nobody knows how old they are."""
    refusing = [view.name for view in model.views if view.on_stale is OnStale.REFUSE]
    if model.store.degrades and refusing:
        text = (
            f"models.{model.name}.store.unavailable: defaults would serve {', '.join(refusing)} without the store, and "
            'on_stale="refuse" forbids that; say `unavailable: refuse`, or on_stale="default" in the view'
        )
        yield Mistake(path=path, text=text, keys=("models", model.name, "store", "unavailable"))


def request_name_mistakes(path: Path, models: Mapping[str, ModelDeclaration]) -> Iterator[Mistake]:
    """Yield names of entities and inputs that mean something else already."""
    kinds: dict[str, str] = {}
    for model in models.values():
        entities = [(key, "entity", ("entities",)) for key in model.entity_keys]
        inputs = [(one.name, f"{one.type} input", ("inputs", one.name)) for one in model.inputs]
        for name, kind, keys in [*entities, *inputs]:
            at = ("models", model.name, *keys)
            if name in _RESERVED:
                text = f"{kind} {name!r} of model {model.name!r} has the name of a field that every prediction has; rename it"
                yield Mistake(path=path, text=text, keys=at)
            if kinds.setdefault(name, kind) != kind:
                text = f"{name!r} is declared as {kinds[name]} and as {kind}; one name has one meaning"
                yield Mistake(path=path, text=text, keys=at)
