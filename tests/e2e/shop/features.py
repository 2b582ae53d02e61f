"""One view keyed as the topic, one keyed otherwise (a sub-blob per partition)."""

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

customer = Entity("customer")
merchant = Entity("merchant")

customer_payments = FeatureView(
    "customer_payments",
    version=1,
    source=Source("payments", entity=customer, event_time="paid_at"),
    features=[
        count().over("1h"),
        sum_of("amount").over("1h"),
        mean("amount").over("24h"),
        std("amount").over("24h"),
        last("amount"),
        time_since_last(),
    ],
)

merchant_payments = FeatureView(
    "merchant_payments",
    version=1,
    source=Source("payments", entity=merchant, event_time="paid_at"),
    features=[
        count().over("10m"),
        rate("refunded").over("24h"),
        minimum("amount").over("24h"),
        maximum("amount").over("24h"),
    ],
)
