"""Tables: event types whose events replace each other, laid onto the sources of views, and what views may ask of them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from driftline.features import FeatureView, Source
from driftline.features.aggregations import UNWINDOWED
from driftline.project.declaration import EventType
from driftline.project.mistakes import Mistake


def with_tables(
    views: Mapping[str, FeatureView], event_types: Mapping[str, EventType]
) -> dict[str, FeatureView]:
    """Return views that know which of their sources are tables."""
    tables = {name for name, event_type in event_types.items() if event_type.table}

    def laid(source: Source) -> Source:
        return replace(source, table=source.event_type in tables)

    return {name: view.with_sources(laid) for name, view in views.items()} if tables else dict(views)


def table_mistakes(
    path: Path, view: FeatureView, variable: str, event_types: Mapping[str, EventType]
) -> Iterator[Mistake]:
    """Yield the features of a stored view that a table cannot give: compaction keeps the last event of a key only."""
    event_type = event_types.get(view.source.event_type)
    if event_type is None or not event_type.table:
        return
    for feature in view.aggregated:
        if feature.aggregate not in UNWINDOWED:
            text = (
                f"feature {feature.name!r} of {view.name!r} aggregates events of {event_type.name!r}, which is a table: "
                "only its last rows stay; read it with last(...), or remove table: true"
            )
            yield Mistake(path=path, text=text, names=(variable, feature.field or feature.name))
    if event_type.key not in view.source.entity_fields:
        text = (
            f"feature view {view.name!r} looks {event_type.name!r} up by {', '.join(view.source.entity_fields)}, and a "
            f"table is looked up by its key, {event_type.key!r}"
        )
        yield Mistake(path=path, text=text, names=(variable, event_type.name))
