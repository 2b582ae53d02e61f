"""Settings of the alerter."""

from pathlib import Path

from pydantic import Field

from driftline.control.settings import ControlSettings


class AlerterSettings(ControlSettings):
    """What the alerter needs to know beyond the settings of every control-plane service."""

    rules: Path | None = Field(
        default=None,
        validation_alias="DRIFTLINE_ALERTER_RULES",
        description="YAML file whose `alerts:` section takes the place of the project's (an environment's own routes)",
    )
    watch: str = Field(
        default="",
        validation_alias="DRIFTLINE_ALERTER_WATCH",
        pattern=r"^([a-z][a-z0-9_-]*=https?://[^,\s]+(,[a-z][a-z0-9_-]*=https?://[^,\s]+)*)?$",
        description="Services to watch, SERVICE=URL separated by commas; besides those of the state folder",
    )
    patience_seconds: float = Field(
        default=30.0,
        gt=0,
        validation_alias="DRIFTLINE_ALERTER_PATIENCE_SECONDS",
        description="Seconds for which a service must be not ready to be an alert, and ready to be over it",
    )
    poll_seconds: float = Field(
        default=3.0,
        gt=0,
        validation_alias="DRIFTLINE_ALERTER_POLL_SECONDS",
        description="Seconds between two looks at the services",
    )
    tick_seconds: float = Field(
        default=0.5,
        gt=0,
        le=10,
        validation_alias="DRIFTLINE_ALERTER_TICK_SECONDS",
        description="Seconds between two looks at the clock: the grain of all delays",
    )
