"""Features: declared once in Python, the same in the stream, in a backfill and in a training set."""

from driftline.features.conditions import Condition, field
from driftline.features.declarations import (
    Aggregate,
    Entity,
    Feature,
    FeatureView,
    OnStale,
    Source,
    count,
    last,
    maximum,
    mean,
    minimum,
    rate,
    std,
    sum_of,
    time_since_last,
)
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
    "derived",
    "feature",
    "field",
    "join_key",
    "last",
    "maximum",
    "mean",
    "minimum",
    "rate",
    "std",
    "sum_of",
    "time_since_last",
]
