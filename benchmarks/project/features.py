"""48 tiles of half an hour with 4 accumulators each: the shape that the targets name."""

from driftline.features import Entity, FeatureView, Source, count, mean, std

sensor = Entity("sensor")
readings = Source("readings", entity=sensor, event_time="read_at")

sensor_readings = FeatureView(
    "sensor_readings",
    version=1,
    source=readings,
    features=[count().over("23h"), mean("value").over("23h"), std("value").over("3h")],
    tile="30m",
    ttl="1d",
)
