"""Settings of the profiler."""

from pydantic import Field

from driftline.streaming.settings import StreamSettings


class ProfilerSettings(StreamSettings):
    """What the profiler needs to know beyond the settings of every stream service."""

    flush_seconds: float = Field(
        default=2.0,
        gt=0,
        validation_alias="DRIFTLINE_PROFILER_FLUSH_SECONDS",
        description="How long rows are gathered before their profiles are written",
    )
    flush_rows: int = Field(
        default=100_000,
        ge=1,
        validation_alias="DRIFTLINE_PROFILER_FLUSH_ROWS",
        description="Rows that are gathered at most before their profiles are written",
    )
    quiet_seconds: float = Field(
        default=60.0,
        gt=0,
        validation_alias="DRIFTLINE_PROFILER_QUIET_SECONDS",
        description="How long a partition must bring nothing, read to its end, so that it holds no window open",
    )
