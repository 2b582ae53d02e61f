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
    archive: str = Field(
        default="",
        validation_alias="DRIFTLINE_ARCHIVE",
        description="Folder or URL of the archive, for the history of views that topics no longer hold; empty: none",
    )
    backfill_share: float = Field(
        default=0.3,
        gt=0,
        le=0.9,
        validation_alias="DRIFTLINE_BACKFILL_SHARE",
        description="Share of the time that filling views gets while events come without a pause",
    )
