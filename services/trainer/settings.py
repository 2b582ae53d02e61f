"""Settings of the trainer."""

from pydantic import Field

from driftline.streaming.settings import StreamSettings


class TrainerSettings(StreamSettings):
    """What the trainer needs to know beyond the settings of every stream service."""

    #: A training is one long step of the loop; a dead process is noticed by its session, not by this.
    max_poll_interval_ms: int = Field(
        default=6 * 3_600_000,
        ge=60_000,
        le=24 * 3_600_000,
        validation_alias="DRIFTLINE_TRAINER_MAX_MS",
        description="Longest that one training may take before the request is given to another process",
    )
