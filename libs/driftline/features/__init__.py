"""Features: declared once in Python, the same in the stream, in a backfill and in a training set."""

from driftline.features.aggregations import (
    Aggregate,
    Feature,
    count,
    decayed_count,
    decayed_mean,
    decayed_sum,
    distinct_count,
    last,
    maximum,
    mean,
    minimum,
    most_frequent,
    rate,
    share,
    std,
    sum_of,
    time_since_last,
)
from driftline.features.conditions import Condition, field
from driftline.features.declarations import Entity, FeatureView, OnStale, Source
from driftline.features.derivations import Derived, derived, feature
from driftline.features.entity_keys import join_key

__all__ = [
    "Aggregate",
    "Condition",
    "Derived",
    "Entity",
    "Feature",
    "FeatureView",
    "OnStale",
    "Source",
    "count",
    "decayed_count",
    "decayed_mean",
    "decayed_sum",
    "derived",
    "distinct_count",
    "feature",
    "field",
    "join_key",
    "last",
    "maximum",
    "mean",
    "minimum",
    "most_frequent",
    "rate",
    "share",
    "std",
    "sum_of",
    "time_since_last",
]
