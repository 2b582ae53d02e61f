"""The feature views of the flights demo: how things run at an airport, for an airline, in the weather.

All times are the moments at which something happened, never the schedule: a delay counts from the moment
it was known. Windows over scheduled time would leak the future into the features.
"""

from driftline.features import (
    Entity,
    FeatureView,
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

origin = Entity("origin", "Airport of departure: EWR, JFK or LGA.")
dest = Entity("dest", "Airport of destination.")
carrier = Entity("carrier", "Airline.")

origin_departures = FeatureView(
    "origin_departures",
    version=1,
    source=Source("departures", entity=origin, event_time="departed_at"),
    features=[
        mean("departure_delay").over("1h"),
        mean("departure_delay").over("3h"),
        std("departure_delay").over("3h"),
        rate("late").over("1h"),
        rate("late").over("3h"),
        rate("late").over("24h"),
        count().over("3h"),
    ],
    ttl="2d",
    description="How punctually, and how many, flights have left this airport lately.",
)

carrier_departures = FeatureView(
    "carrier_departures",
    version=1,
    source=Source("departures", entity=carrier, event_time="departed_at"),
    features=[
        mean("departure_delay").over("3h"),
        rate("late").over("3h"),
        rate("late").over("24h"),
    ],
    ttl="2d",
    description="How punctually this airline's flights have left New York lately.",
)

origin_arrivals = FeatureView(
    "origin_arrivals",
    version=1,
    source=Source("arrivals", entity=origin, event_time="arrived_at"),
    features=[
        mean("arrival_delay").over("3h"),
        rate("late").over("3h"),
        rate("late").over("24h"),
    ],
    ttl="2d",
    description="How late flights from this airport have arrived lately.",
)

carrier_arrivals = FeatureView(
    "carrier_arrivals",
    version=1,
    source=Source("arrivals", entity=carrier, event_time="arrived_at"),
    features=[
        mean("arrival_delay").over("3h"),
        mean("arrival_delay").over("24h"),
        mean("arrival_delay").over("7d"),
        rate("late").over("24h"),
        rate("late").over("7d"),
    ],
    ttl="7d",
    description="How late this airline's flights from New York have arrived lately.",
)

dest_arrivals = FeatureView(
    "dest_arrivals",
    version=1,
    source=Source("arrivals", entity=dest, event_time="arrived_at"),
    features=[
        mean("arrival_delay").over("3h"),
        mean("arrival_delay").over("24h"),
        maximum("arrival_delay").over("24h"),
        rate("late").over("24h"),
        time_since_last(),
    ],
    ttl="7d",
    description="How late flights from New York have arrived at this destination lately.",
)

origin_cancellations = FeatureView(
    "origin_cancellations",
    version=1,
    source=Source("cancellations", entity=origin, event_time="cancelled_at"),
    features=[
        count().over("3h"),
        count().over("24h"),
    ],
    description="How many flights from this airport were cancelled lately.",
)

origin_weather = FeatureView(
    "origin_weather",
    version=1,
    source=Source("weather", entity=origin, event_time="observed_at"),
    features=[
        last("temperature"),
        last("dew_point"),
        last("pressure"),
        last("wind_direction"),
        last("wind_speed"),
        maximum("wind_speed").over("6h"),
        maximum("wind_gust").over("3h"),
        last("visibility"),
        minimum("visibility").over("6h"),
        sum_of("precipitation").over("3h"),
        sum_of("precipitation").over("24h"),
    ],
    ttl="6h",
    on_stale="default",
    description="The newest weather at this airport, and that of the last hours.",
)
