"""A view over a stream, a table, another view, and what another model said."""

from driftline.features import Entity, FeatureView, Source, count, derived, feature, field, last, mean

customer = Entity("customer")
payments = Source("payments", entity=customer, event_time="paid_at")
customers = Source("customers", entity=customer, event_time="changed_at")
said = Source("predictions", entity=customer, event_time="event_time", name="said")
by_fraud = field("model") == "fraud"

customer_payments = FeatureView(
    "customer_payments",
    version=1,
    source=payments,
    features=[count().over("1h"), mean("amount").over("24h")],
)

customer_now = FeatureView(
    "customer_now",
    version=1,
    source=payments,
    features=[
        count().over("24h"),
        last("credit").of(customers),
        count().of(said).where(by_fraud).over("24h").named("asked"),
        last("score").of(said).where(by_fraud).named("fraud_score"),
        derived("use", feature("customer_payments__mean_amount_1d") / feature("customers_last_credit")),
    ],
    joins=[customers, said, customer_payments],
)
