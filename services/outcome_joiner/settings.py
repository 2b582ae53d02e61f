"""Settings of the outcome joiner."""

from pydantic import Field

from driftline.streaming.settings import StreamSettings


class OutcomeJoinerSettings(StreamSettings):
    """What the joiner needs to know beyond the settings of every stream service."""

    keep_factor: float = Field(
        default=3.0,
        ge=2,
        validation_alias="DRIFTLINE_OUTCOME_JOINER_KEEP_FACTOR",
        description="Longest stay in Redis by the wall clock, in label horizons (event time frees it sooner)",
    )
