"""All Prometheus metrics of the platform, in one list: a metric's name appears here and nowhere else.

Labels have few values (topics, partitions, views, routes), never keys or ids.
"""

from prometheus_client import Counter, Gauge, Histogram

_MILLISECONDS_TO_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ROWS = (1, 10, 30, 100, 300, 1_000, 3_000, 10_000)

# Consumer loop
LAG = Gauge(
    "driftline_lag_messages", "Messages in a partition that are not processed yet.", ["topic", "partition"]
)
BATCH_ROWS = Histogram("driftline_batch_rows", "Messages in one batch.", ["topic"], buckets=_ROWS)
STEP_SECONDS = Histogram(
    "driftline_step_seconds",
    "Time of one step of a pipeline for one batch.",
    ["step"],
    buckets=_MILLISECONDS_TO_SECONDS,
)
DEAD_LETTERS = Counter(
    "driftline_dead_letters", "Messages that went to the dead-letter topic.", ["topic", "stage"]
)
REBALANCES = Counter("driftline_rebalances", "Changes of this consumer's partitions.", ["kind"])
TRANSACTIONS = Counter("driftline_transactions", "Kafka transactions, by how they ended.", ["outcome"])
PROGRESS_TIME = Gauge(
    "driftline_progress_timestamp_seconds", "When this component last made progress.", ["component"]
)

# Feature store
EVENTS_APPLIED = Counter("driftline_events_applied", "Events that changed the online store.", ["source"])
EVENTS_DUPLICATE = Counter(
    "driftline_events_duplicate", "Events seen before (same UUID), skipped.", ["source"]
)
EVENTS_TOO_LATE = Counter(
    "driftline_events_too_late", "Events older than every window that a view keeps.", ["view"]
)
STORE_OWNERSHIP_LOST = Counter(
    "driftline_store_ownership_lost", "Partitions that another process took over.", ["topic"]
)
STATES_RESIDENT = Gauge("driftline_states_resident", "Entities whose state is held in memory.", ["topic"])
STORE_SECONDS = Histogram(
    "driftline_store_seconds",
    "Time of one exchange with the online store.",
    ["operation"],
    buckets=_MILLISECONDS_TO_SECONDS,
)

# Predictions
PREDICTIONS = Counter("driftline_predictions", "Predictions made.", ["model", "channel", "status"])
FEATURES_SERVED = Counter(
    "driftline_features_served", "Feature views served, by freshness.", ["view", "status"]
)
SCORE_SECONDS = Histogram(
    "driftline_score_seconds",
    "Time the model took for one batch.",
    ["model"],
    buckets=_MILLISECONDS_TO_SECONDS,
)

# Outcomes
LABELS_SETTLED = Gauge(
    "driftline_labels_settled",
    "Predictions and labels by what became of them, all members together.",
    ["what"],
)

# Monitoring
ROWS_NOT_PROFILED = Counter(
    "driftline_rows_not_profiled", "Rows of model versions that have no reference to compare to.", ["model"]
)

ROWS_TOO_LATE = Counter(
    "driftline_rows_too_late", "Profiled rows whose window was closed already.", ["model"]
)
DRIFT_SIGNALS = Counter("driftline_drift_signals", "Drift signals sent.", ["model", "level"])

# Alerts
ALERTS_OPEN = Gauge("driftline_alerts_open", "Alerts that are not over, silenced ones too.", ["severity"])
NOTIFICATIONS = Counter(
    "driftline_notifications",
    "Attempts to notify a channel: delivered, retried (failed, tried again), given_up, unknown (killed on its way).",
    ["route", "channel", "outcome"],
)
NOTIFICATION_SECONDS = Histogram(
    "driftline_notification_seconds",
    "Time from the decision to notify to the delivery, with grouping, quiet hours and retries.",
    ["route", "channel"],
    buckets=(0.1, 0.3, 1.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0),
)

# Parity
PARITY_VALUES = Counter(
    "driftline_parity_values",
    "Served feature values that were computed again: equal, different, in_flight (an event was on its way).",
    ["view", "result"],
)
PARITY_MISMATCH = Gauge(
    "driftline_parity_mismatch_share", "Share of different values in the newest look at a view.", ["view"]
)
PARITY_LOOKS = Counter("driftline_parity_looks", "Looks at parity, by how they ended.", ["outcome"])

# Archive
ARCHIVED_ROWS = Counter("driftline_archived_rows", "Records that stand in the archive.", ["topic"])
ARCHIVED_BAD = Counter(
    "driftline_archived_bad", "Records that could not be decoded, archived as bytes.", ["topic", "stage"]
)
ARCHIVE_COMMITS = Counter(
    "driftline_archive_commits", "Commits to the archive, by how they ended.", ["topic", "outcome"]
)

# Producing with acknowledgement
EVENTS_ACCEPTED = Counter("driftline_events_accepted", "Events that the broker acknowledged.", ["event_type"])
EVENTS_REJECTED = Counter("driftline_events_rejected", "Events that their schema refused.", ["event_type"])
PRODUCE_IN_FLIGHT = Gauge("driftline_produce_in_flight", "Messages sent and not acknowledged yet.")
PRODUCE_FAILURES = Counter(
    "driftline_produce_failures", "Messages that the broker did not acknowledge.", ["topic"]
)

# HTTP
HTTP_SECONDS = Histogram(
    "driftline_http_seconds",
    "Time from a request's head to its response's end.",
    ["route", "method", "status"],
    buckets=_MILLISECONDS_TO_SECONDS,
)
HTTP_IN_FLIGHT = Gauge("driftline_http_in_flight", "Requests being handled.")
