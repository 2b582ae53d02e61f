"""Names of the fields that every project's requests and predictions have, each in one place."""

REQUEST_ID = "request_id"
MODEL = "model"
REQUESTED_AT = "requested_at"
EVENT_TIME = "event_time"
CALLER = "caller"

MODEL_VERSION = "model_version"
CHANNEL = "channel"
STATUS = "status"
SCORE = "score"
DECISION = "decision"
ERROR = "error"
PREDICTED_AT = "predicted_at"
DURATION_US = "duration_us"
FEATURE_VIEWS = "feature_views"
DEGRADED = "degraded"
ARM = "arm"

CHANNELS = ("HTTP", "TOPIC", "BATCH")
STATUSES = ("ANSWERED", "REFUSED", "FAILED")

REQUEST_HEADER = (REQUEST_ID, MODEL, REQUESTED_AT, EVENT_TIME, CALLER)
PREDICTION_HEADER = (
    REQUEST_ID,
    MODEL,
    MODEL_VERSION,
    CHANNEL,
    STATUS,
    SCORE,
    DECISION,
    ERROR,
    REQUESTED_AT,
    EVENT_TIME,
    PREDICTED_AT,
    DURATION_US,
    CALLER,
    FEATURE_VIEWS,
    DEGRADED,
    ARM,
)
#: A project's own names (entities, inputs) may not be any of these.
RESERVED = frozenset(REQUEST_HEADER) | frozenset(PREDICTION_HEADER)


def arm_label(trial: str, arm: str) -> str:
    """Return an arm of a trial as the log names it.

    >>> arm_label("canary-2", "champion")
    'canary-2/champion'
    """
    return f"{trial}/{arm}"
