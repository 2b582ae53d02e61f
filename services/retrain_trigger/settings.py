"""Settings of the retrain trigger."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from driftline.control import ControlSettings
from driftline.models.retraining import DAY_US, RetrainRule
from driftline.runtime.durations import parse_duration_us


def _duration(value: object) -> object:
    return parse_duration_us(value) if isinstance(value, str) else value


_Duration = Annotated[int, BeforeValidator(_duration)]


class RetrainTriggerSettings(ControlSettings):
    """What asks for a retrain; all times are event time."""

    cooldown_us: _Duration = Field(
        default=14 * DAY_US,
        ge=0,
        validation_alias="DRIFTLINE_RETRAIN_COOLDOWN",
        description="After a request, how long nothing but a person makes another, like 14d",
    )
    every_us: _Duration | None = Field(
        default=None,
        validation_alias="DRIFTLINE_RETRAIN_EVERY",
        description="Period of a schedule, like 30d; unset: none",
    )
    volume: int | None = Field(
        default=None,
        ge=1,
        validation_alias="DRIFTLINE_RETRAIN_VOLUME",
        description="New labelled rows that ask for a retrain; unset: none do",
    )
    target_log_loss: float | None = Field(
        default=None,
        gt=0,
        validation_alias="DRIFTLINE_RETRAIN_TARGET_LOG_LOSS",
        description="Log loss above which a model is not good enough; unset: no target",
    )
    target_value: float | None = Field(
        default=None,
        validation_alias="DRIFTLINE_RETRAIN_TARGET_VALUE",
        description="Value per prediction below which a model is not good enough; unset: no target",
    )
    target_windows: int = Field(
        default=7,
        ge=1,
        le=400,
        validation_alias="DRIFTLINE_RETRAIN_TARGET_WINDOWS",
        description="Closed windows over which targets are measured",
    )

    @property
    def rule(self) -> RetrainRule:
        """What asks for a retrain."""
        return RetrainRule(
            cooldown_us=self.cooldown_us,
            every_us=self.every_us,
            volume=self.volume,
            target_log_loss=self.target_log_loss,
            target_value=self.target_value,
            target_windows=self.target_windows,
        )
