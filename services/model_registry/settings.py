"""Settings of the model registry."""

from enum import StrEnum

from pydantic import Field, field_validator

from driftline.models.comparison import ComparisonRule
from driftline.streaming.settings import StreamSettings


class Promotion(StrEnum):
    """Who has the last word on a version that the evidence is for."""

    AUTOMATIC = "automatic"
    APPROVAL = "approval"


class ModelRegistrySettings(StreamSettings):
    """What the registry needs to know beyond the settings of every stream service."""

    promotion: Promotion = Field(
        default=Promotion.AUTOMATIC,
        validation_alias="DRIFTLINE_PROMOTION",
        description="automatic, or approval: a person has the last word",
    )
    looks: str = Field(
        default="7,14,21,28",
        validation_alias="DRIFTLINE_COMPARISON_DAYS",
        description="Days of outcomes after which champion and challenger are compared",
    )
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        validation_alias="DRIFTLINE_COMPARISON_ALPHA",
        description="Probability of promoting a challenger that is only as good",
    )
    minimum_outcomes: int = Field(
        default=1_000,
        ge=1,
        validation_alias="DRIFTLINE_COMPARISON_OUTCOMES",
        description="Fewest paired outcomes that decide anything",
    )
    watch_champion: bool = Field(
        default=True,
        validation_alias="DRIFTLINE_WATCH_CHAMPION",
        description="Roll a new champion back where the one before it proves better",
    )

    @field_validator("looks")
    @classmethod
    def _ascending(cls, text: str) -> str:
        days = [int(part) for part in text.split(",")]
        if not days or days[0] < 2 or sorted(set(days)) != days:
            raise ValueError("write ascending numbers of days from 2 on, like 7,14,21,28")
        return text

    @property
    def comparison(self) -> ComparisonRule:
        """How champion and challenger are compared."""
        looks = tuple(int(part) for part in self.looks.split(","))
        return ComparisonRule(looks=looks, alpha=self.alpha, minimum_outcomes=self.minimum_outcomes)
