"""Feast on Redis: declares the features, then writes a table of values to its online store for each line on stdin.

Run by the Python of an environment with Feast: feast_peer.py REPOSITORY VALUES.parquet, a column ``sensor`` and
features. Prints {"ready": true}, then for each run {"seconds": ..., "rows": ...}.
"""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from feast import (  # type: ignore[import-not-found]
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    ValueType,
)
from feast.types import Float64  # type: ignore[import-not-found]

VIEW, SERVICE = "sensor_wide", "wide"
_TIME = "event_timestamp"


def main() -> None:
    """Answer each line with a write."""
    repository, values_file = (Path(path) for path in sys.argv[1:3])
    values = pd.read_parquet(values_file)
    features = [name for name in values.columns if name != "sensor"]
    values[_TIME] = datetime.now(UTC)
    batch = repository / "batch.parquet"
    values.to_parquet(batch)
    sensor = Entity(name="sensor", join_keys=["sensor"], value_type=ValueType.STRING)
    view = FeatureView(
        name=VIEW,
        entities=[sensor],
        schema=[Field(name=name, dtype=Float64) for name in features],
        source=PushSource(name="pushed", batch_source=FileSource(path=str(batch), timestamp_field=_TIME)),
        ttl=timedelta(days=1),
    )
    store = FeatureStore(repo_path=str(repository))
    store.apply([sensor, view, FeatureService(name=SERVICE, features=[view])])
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        values[_TIME] = datetime.now(UTC)  # Feast leaves out what is not newer than what it has
        begun = time.perf_counter()
        store.write_to_online_store(VIEW, df=values)
        print(json.dumps({"seconds": time.perf_counter() - begun, "rows": len(values)}), flush=True)


if __name__ == "__main__":
    main()
