"""All Prometheus metrics of the platform, in one list: a metric's name appears here and nowhere else.

Labels have few values (topics, partitions, views, routes), never keys or ids.
"""

import threading
from collections.abc import Iterable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.samples import Sample

_MILLISECONDS_TO_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class ManyHistogram(Histogram):
    """A histogram that takes whole columns: no step in Python per value."""

    def observe_many(self, amounts: NDArray[np.float64]) -> None:
        """Observe every value of an array."""
        places = np.searchsorted(np.array(self._upper_bounds), amounts, side="left")
        for place, count in enumerate(np.bincount(places, minlength=len(self._upper_bounds)).tolist()):
            if count:
                self._buckets[place].inc(count)
        self._sum.inc(float(amounts.sum()))


class GatheringHistogram(ManyHistogram):
    """A histogram for values that come one by one and often: they are gathered, and observed when somebody looks."""

    _MOST = 1_000

    def _metric_init(self) -> None:
        super()._metric_init()
        self._noted: list[float] = []
        self._taking = threading.Lock()

    def note(self, amount: float) -> None:
        """Observe a value, from any thread."""
        self._noted.append(amount)
        if len(self._noted) >= self._MOST:
            self._observe_noted()

    def _child_samples(self) -> Iterable[Sample]:
        self._observe_noted()
        return super()._child_samples()

    def _observe_noted(self) -> None:
        with self._taking:
            taken = self._noted[:]
            del self._noted[: len(taken)]  # what is noted meanwhile comes behind
            if taken:
                self.observe_many(np.array(taken))


_ROWS = (1, 10, 30, 100, 300, 1_000, 3_000, 10_000)

# Consumer loop
LAG = Gauge(
    "driftline_lag_messages", "Messages in a partition that are not processed yet.", ["topic", "partition"]
)
BATCH_ROWS = Histogram("driftline_batch_rows", "Messages in one batch.", ["topic"], buckets=_ROWS)
STEP_SECONDS = GatheringHistogram(
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
EVENTS_LEFT_OUT = Counter(
    "driftline_events_left_out",
    "Records of the platform's own streams that the store cannot use, like predictions about the future.",
    ["event_type"],
)
UNMAPPED_CODES = Counter(
    "driftline_unmapped_codes",
    "Values of a code list without a counterpart in the version that a view or a model reads.",
    ["code_list", "reader"],
)
EVENT_TO_READABLE = ManyHistogram(
    "driftline_event_to_readable_seconds",
    "Time from an event's record in the log to its being readable in a view.",
    ["view"],
    buckets=_MILLISECONDS_TO_SECONDS,
)
VIEW_EVENT_TIME = Gauge(
    "driftline_view_event_timestamp_seconds", "Event time of a view's newest readable event.", ["view"]
)
VIEW_LOGGED_TIME = Gauge(
    "driftline_view_logged_timestamp_seconds",
    "When a view's newest readable event came into the log.",
    ["view"],
)
VIEW_FRESHNESS_TARGET = Gauge(
    "driftline_view_freshness_target_seconds", "How old a view's newest readable event may be.", ["view"]
)
VIEW_FRESHNESS_BREACHED = Gauge(
    "driftline_view_freshness_breached",
    "1 where the newest readable event of this process's partitions is older than the view's target.",
    ["view"],
)
STORE_OWNERSHIP_LOST = Counter(
    "driftline_store_ownership_lost", "Partitions that another process took over.", ["topic"]
)
BACKFILL_RECORDS = Counter(
    "driftline_backfill_records", "Records of the log that were read again to fill views.", ["topic"]
)
BACKFILL_LEFT = Gauge(
    "driftline_backfill_records_left",
    "Records to read until a partition's views are full.",
    ["topic", "partition"],
)
BACKFILL_RATE = Gauge(
    "driftline_backfill_records_per_second",
    "How fast a partition's views are filled.",
    ["topic", "partition"],
)
BACKFILL_SECONDS_LEFT = Gauge(
    "driftline_backfill_seconds_left",
    "Time until a partition's views are full, if it goes on like that.",
    ["topic", "partition"],
)
BACKFILLS = Counter("driftline_backfills", "Times that a view was filled in a partition.", ["view"])
STORE_BUILDS = Counter(
    "driftline_store_builds", "Times that a partition was built from its oldest record.", ["topic"]
)
STORE_BUILD_SECONDS = Gauge(
    "driftline_store_build_seconds",
    "Time from taking a partition without a state to having caught up, the last time.",
    ["topic", "partition"],
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
PREDICTIONS_REPEATED = Counter(
    "driftline_predictions_repeated",
    "Requests that were asked before: answered as before, not logged again.",
    ["channel"],
)
FEATURES_SERVED = Counter(
    "driftline_features_served", "Feature views served, by freshness.", ["view", "status"]
)
PREDICTIONS_DEGRADED = Counter(
    "driftline_predictions_degraded",
    "Requests whose features were defaults because the online store did not answer in time.",
    ["model"],
)
SCORE_SECONDS = GatheringHistogram(
    "driftline_score_seconds",
    "Time the model took for one batch.",
    ["model"],
    buckets=_MILLISECONDS_TO_SECONDS,
)
MODEL_FAILURES = Counter(
    "driftline_model_failures",
    "Calls that a version failed: exception, timeout, shape, no_number; bundle: a version that cannot be loaded.",
    ["model", "kind"],
)
MODEL_FALLBACKS = Counter(
    "driftline_model_fallbacks", "Predictions by another version than the one that should answer.", ["model"]
)
MODEL_VERSIONS = Gauge(
    "driftline_model_versions",
    "Loaded versions of a model, by the state of their breaker.",
    ["model", "breaker"],
)
LIVE_LISTENERS = Gauge(
    "driftline_live_listeners", "Callers that listen to a model's live predictions.", ["model"]
)
LIVE_MISSED = Counter(
    "driftline_live_missed", "Live predictions that a slow listener was not told.", ["model"]
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
HTTP_SECONDS = GatheringHistogram(
    "driftline_http_seconds",
    "Time from a request's head to its response's end.",
    ["route", "method", "status"],
    buckets=_MILLISECONDS_TO_SECONDS,
)
HTTP_IN_FLIGHT = Gauge("driftline_http_in_flight", "Requests being handled.")


def forget_backfill(topic: str, partition: int) -> None:
    """Show nothing more of a partition of which nothing is filled here."""
    for gauge in (BACKFILL_LEFT, BACKFILL_RATE, BACKFILL_SECONDS_LEFT):
        with suppress(KeyError):
            gauge.remove(topic, str(partition))


def forget_view(view: str) -> None:
    """Show nothing more of a view of which this process has no partition."""
    for gauge in (VIEW_EVENT_TIME, VIEW_LOGGED_TIME, VIEW_FRESHNESS_BREACHED):
        with suppress(KeyError):
            gauge.remove(view)
