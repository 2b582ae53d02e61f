"""25 features over 47 tiles of half an hour, as the targets say."""

from driftline.features import Entity, FeatureView, Source, count, maximum, mean, minimum, std

sensor_wide = FeatureView(
    "sensor_wide",
    version=1,
    source=Source("readings", entity=Entity("sensor"), event_time="read_at"),
    features=[
        feature.over(hours)
        for hours in ("1h", "3h", "6h", "12h", "23h")
        for feature in (count(), mean("value"), std("value"), minimum("value"), maximum("value"))
    ],
    tile="30m",
    ttl="1d",
)
