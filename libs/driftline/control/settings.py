"""Settings that every service of the control plane has."""

from pydantic import Field

from driftline.streaming.settings import StreamSettings


class ControlSettings(StreamSettings):
    """The settings of a stream loop, and how long a process may stand still before it ends itself."""

    stall_seconds: float = Field(
        default=20.0,
        ge=2,
        validation_alias="DRIFTLINE_STALL_SECONDS",
        description="Seconds that a message may wait without progress before the process ends itself",
    )
    start_seconds: float = Field(
        default=90.0,
        ge=10,
        validation_alias="DRIFTLINE_START_SECONDS",
        description="Seconds that a start or a rebalance may take before the process ends itself",
    )
