"""Settings that every service with a stream loop has."""

from pydantic import Field

from driftline.runtime.settings import PlatformSettings
from driftline.streaming.dead_letters import DeadLetterCeiling


class StreamSettings(PlatformSettings):
    """The platform's settings and those of a stream loop."""

    max_batch: int = Field(
        default=10_000,
        ge=1,
        le=100_000,
        validation_alias="DRIFTLINE_MAX_BATCH",
        description="Most messages taken at once",
    )
    max_poll_interval_ms: int = Field(
        default=300_000,
        ge=10_000,
        validation_alias="DRIFTLINE_MAX_POLL_INTERVAL_MS",
        description="Longest silence of the loop before the group gives its partitions to others",
    )
    dead_letter_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        validation_alias="DRIFTLINE_DEAD_LETTER_SHARE",
        description="Share of bad messages above which the service stops",
    )
    dead_letter_window: int = Field(
        default=1_000,
        ge=1,
        validation_alias="DRIFTLINE_DEAD_LETTER_WINDOW",
        description="Messages over which that share is taken",
    )
    dead_letter_minimum: int = Field(
        default=200,
        ge=1,
        validation_alias="DRIFTLINE_DEAD_LETTER_MINIMUM",
        description="Bad messages needed before the share counts",
    )

    def ceiling(self) -> DeadLetterCeiling:
        """Return the dead-letter ceiling that these settings describe."""
        return DeadLetterCeiling(
            share=self.dead_letter_share, window=self.dead_letter_window, minimum=self.dead_letter_minimum
        )
