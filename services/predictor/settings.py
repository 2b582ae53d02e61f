"""Settings of the predictor."""

from pydantic import Field, field_validator

from driftline.streaming.settings import StreamSettings

MIN_ANSWER_SECONDS = 60


class PredictorSettings(StreamSettings):
    """What the predictor needs to know beyond the settings of every stream service."""

    max_http_batch: int = Field(
        default=64,
        ge=1,
        le=1_000,
        validation_alias="DRIFTLINE_PREDICTOR_MAX_HTTP_BATCH",
        description="Most HTTP requests scored at once, and most feature reads answered at once",
    )
    max_waiting: int = Field(
        default=1_000,
        ge=1,
        validation_alias="DRIFTLINE_PREDICTOR_MAX_WAITING",
        description="HTTP requests that may wait, and feature reads; more are refused with 429",
    )
    max_listeners: int = Field(
        default=20,
        ge=0,
        validation_alias="DRIFTLINE_PREDICTOR_MAX_LISTENERS",
        description="Callers that may listen to live predictions; more are refused with 429",
    )
    deadline_seconds: float = Field(
        default=5.0,
        gt=0,
        validation_alias="DRIFTLINE_PREDICTOR_DEADLINE_SECONDS",
        description="Longest time for an HTTP answer; then 503",
    )
    answer_seconds: int = Field(
        default=3_600,
        ge=0,
        validation_alias="DRIFTLINE_ANSWER_SECONDS",
        description="How long a request's UUID gives the answer of before, at least 60; 0: each time is a new one",
    )

    @field_validator("answer_seconds")
    @classmethod
    def _long_enough(cls, seconds: int) -> int:
        if 0 < seconds < MIN_ANSWER_SECONDS:
            raise ValueError(
                f"0, or {MIN_ANSWER_SECONDS} and more: a record may be on its way for some seconds"
            )
        return seconds
