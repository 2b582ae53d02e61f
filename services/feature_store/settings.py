"""Settings of the feature store."""

from pydantic import Field

from driftline.streaming.settings import StreamSettings


class FeatureStoreSettings(StreamSettings):
    """What the feature store needs to know beyond the settings of every stream service."""

    max_entities: int = Field(
        default=200_000,
        ge=1_000,
        validation_alias="DRIFTLINE_FEATURE_STORE_MAX_ENTITIES",
        description="Entities kept in memory for each view and partition",
    )
