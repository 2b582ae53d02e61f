"""Settings of the predictor."""

from pydantic import Field

from driftline.runtime.settings import PlatformSettings


class PredictorSettings(PlatformSettings):
    """What the predictor needs to know beyond the platform's settings."""

    max_batch: int = Field(
        default=10_000,
        ge=1,
        le=100_000,
        validation_alias="DRIFTLINE_PREDICTOR_MAX_BATCH",
        description="Most requests of the topic taken at once",
    )
    max_http_batch: int = Field(
        default=64,
        ge=1,
        le=1_000,
        validation_alias="DRIFTLINE_PREDICTOR_MAX_HTTP_BATCH",
        description="Most HTTP requests scored at once",
    )
    max_waiting: int = Field(
        default=1_000,
        ge=1,
        validation_alias="DRIFTLINE_PREDICTOR_MAX_WAITING",
        description="HTTP requests that may wait; more are refused with 429",
    )
    deadline_seconds: float = Field(
        default=5.0,
        gt=0,
        validation_alias="DRIFTLINE_PREDICTOR_DEADLINE_SECONDS",
        description="Longest time for an HTTP answer; then 503",
    )
    dead_letter_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        validation_alias="DRIFTLINE_PREDICTOR_DEAD_LETTER_SHARE",
        description="Share of bad messages above which the service stops",
    )
