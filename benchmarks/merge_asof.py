"""The training set's peer: the features as a data scientist writes them in pandas, with `merge_asof`.

Per view the events are sorted by time, with running counts and sums by entity. A window is the difference of two of
them: as of the request (`merge_asof`, backward) and before the window's first tile (the same, without exact matches).
``last`` is one `merge_asof` over the events that have the field.

What it does not do: minima and maxima of windows, which running sums cannot give (their columns are left out, so it
has less to do); events that become known after they happened (it refuses them). The tile that a window begins with,
the time-to-live and the defaults are read from the view's declaration, so that all other columns equal ours.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from driftline.features import FeatureView
from driftline.features.aggregations import UNWINDOWED, Aggregate, Feature
from driftline.features.declarations import OnStale
from driftline.features.layout import ViewLayout
from driftline.project import ModelDeclaration
from driftline.project.history import KNOWN_AT, LABEL, LABEL_KNOWN_AT

_ASKED = "event_time"
_EXTREMES = frozenset({Aggregate.MIN, Aggregate.MAX})


def left_out(model: ModelDeclaration) -> tuple[str, ...]:
    """Return the feature columns that the pipeline does not make."""
    return tuple(
        column
        for view in model.views
        for column, feature in zip(view.columns, view.features, strict=True)
        if feature.aggregate in _EXTREMES
    )


def event_frame(view: FeatureView, events: pa.Table) -> pd.DataFrame:
    """Return a view's events as the pipeline takes them; ValueError where one was known later than it happened."""
    source = view.source
    if not events[source.event_time].equals(events[KNOWN_AT]):
        raise ValueError(f"{source.event_type}: some events were known later than they happened")
    fields = ViewLayout.of(view).inputs
    frame = events.select([source.entity_field, source.event_time, *fields]).to_pandas()
    return frame.astype(dict.fromkeys(fields, "float64"))


def training_frame(
    model: ModelDeclaration,
    events: Mapping[str, pd.DataFrame],
    requests: pd.DataFrame,
    known_by: pd.Timestamp,
) -> pd.DataFrame:
    """Return label, times, inputs and features (float32) of the requests whose label was known at an instant.

    ``events`` are frames by view, ``requests`` the history's table, sorted by event time.
    """
    known = requests[LABEL].notna() & (requests[LABEL_KNOWN_AT] <= known_by)
    rows = requests[known].reset_index(drop=True)
    inputs = [column for column in model.numeric_columns if column in rows.columns]
    carried = rows[[*model.categorical_columns, LABEL, _ASKED, LABEL_KNOWN_AT]]
    features = [view_columns(view, events[view.name], rows) for view in model.views]
    numbers = pd.concat([rows[inputs], *features], axis=1).astype("float32")
    return pd.concat([carried, numbers], axis=1)


def view_columns(view: FeatureView, events: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a view's columns, without minima and maxima, for rows sorted by event time."""
    layout = ViewLayout.of(view)
    source = view.source
    events = events.dropna(subset=[source.entity_field, source.event_time])
    events = events.sort_values(source.event_time, kind="stable", ignore_index=True)
    running = _running(view, events)
    now = _as_of(running, view, rows[_ASKED], rows[view.entity.name])
    windows: dict[int, pd.DataFrame] = {}
    for ring in layout.rings:
        for window_us in ring.windows_us:
            start = _window_start(rows[_ASKED], ring.width_us, window_us)
            before = _as_of(running, view, start, rows[view.entity.name], exact=False)
            windows[window_us] = now.drop(columns="newest").fillna(0) - before.drop(columns="newest").fillna(
                0
            )
    age = rows[_ASKED] - now["newest"]
    columns = {}
    for place, (name, feature) in enumerate(zip(view.columns, view.features, strict=True)):
        if feature.aggregate in _EXTREMES:
            continue
        if feature.aggregate is Aggregate.LAST:
            values = _last(view, feature, events, rows)
        elif feature.aggregate is Aggregate.TIME_SINCE_LAST:
            values = age / pd.Timedelta(seconds=1)
        else:
            assert feature.window_us is not None
            values = _windowed(feature, windows[feature.window_us])
        default = layout.defaults[place]
        if view.ttl_us is not None and view.on_stale is OnStale.DEFAULT:
            values = values.mask(age > pd.Timedelta(microseconds=view.ttl_us), default)
        columns[name] = values if np.isnan(default) else values.fillna(default)
    return pd.DataFrame(columns)


def _running(view: FeatureView, events: pd.DataFrame) -> pd.DataFrame:
    """Return the events with what has come to their entity so far: events, and per field count, sum and squares."""
    entity = view.source.entity_field
    windowed = [one for one in view.features if one.aggregate not in UNWINDOWED | _EXTREMES]
    parts = {"events": pd.Series(1.0, index=events.index)}
    for field in sorted({one.field for one in windowed if one.field}):
        parts[f"{field} count"] = events[field].notna().astype("float64")
        parts[f"{field} sum"] = events[field].fillna(0)
    for field in sorted({one.field for one in windowed if one.aggregate is Aggregate.STD}):
        parts[f"{field} squares"] = events[field].fillna(0) ** 2
    sums = pd.DataFrame(parts).groupby(events[entity], sort=False).cumsum()
    return sums.assign(
        entity=events[entity], at=events[view.source.event_time], newest=events[view.source.event_time]
    )


def _as_of(
    running: pd.DataFrame, view: FeatureView, times: pd.Series, entities: pd.Series, *, exact: bool = True
) -> pd.DataFrame:
    asked = pd.DataFrame({"at": times, "entity": entities})
    found = pd.merge_asof(asked, running, on="at", by="entity", allow_exact_matches=exact)
    return found.drop(columns=["at", "entity"])


def _window_start(times: pd.Series, width_us: int, window_us: int) -> pd.Series:
    """Return the begin of the first tile of each window."""
    tiles = times.astype("int64") // width_us - window_us // width_us + 1
    return (tiles * width_us).astype("datetime64[us]")


def _last(view: FeatureView, feature: Feature, events: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    held = events[[view.source.entity_field, view.source.event_time, feature.field]].dropna()
    held = held.sort_values([view.source.event_time, feature.field], kind="stable")
    asked = rows[[_ASKED, view.entity.name]]
    found = pd.merge_asof(
        asked,
        held,
        left_on=_ASKED,
        right_on=view.source.event_time,
        left_by=view.entity.name,
        right_by=view.source.entity_field,
    )
    return found[feature.field]


def _windowed(feature: Feature, window: pd.DataFrame) -> pd.Series:
    if feature.aggregate is Aggregate.COUNT:
        return window[f"{feature.field} count" if feature.field else "events"]
    total, count = window[f"{feature.field} sum"], window[f"{feature.field} count"]
    if feature.aggregate is Aggregate.SUM:
        return total
    mean = total / count.where(count > 0)
    if feature.aggregate in {Aggregate.MEAN, Aggregate.RATE}:
        return mean
    return np.sqrt((window[f"{feature.field} squares"] / count - mean**2).clip(lower=0))
