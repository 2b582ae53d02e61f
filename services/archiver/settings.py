"""Settings of the archiver."""

from pydantic import Field

from driftline.archive.maintenance import VACUUM_HOURS
from driftline.streaming.settings import StreamSettings


class ArchiverSettings(StreamSettings):
    """What the archiver needs to know beyond the settings of every stream service."""

    archive: str = Field(
        default=".driftline/archive",
        validation_alias="DRIFTLINE_ARCHIVE",
        description="Folder or URL (s3://, gs://, az://) of the archive",
    )
    flush_seconds: float = Field(
        default=30.0,
        ge=0.1,
        validation_alias="DRIFTLINE_ARCHIVE_FLUSH_SECONDS",
        description="Longest time a record waits for its commit",
    )
    flush_rows: int = Field(
        default=50_000,
        ge=1,
        validation_alias="DRIFTLINE_ARCHIVE_FLUSH_ROWS",
        description="Records of a topic that are committed without waiting",
    )
    flush_bytes: int = Field(
        default=128 << 20,
        ge=1 << 20,
        validation_alias="DRIFTLINE_ARCHIVE_FLUSH_BYTES",
        description="Bytes of values held for all topics; beyond that everything is committed without waiting",
    )
    compact_seconds: float = Field(
        default=3_600.0,
        ge=0,
        validation_alias="DRIFTLINE_ARCHIVE_COMPACT_SECONDS",
        description="Time between two compactions of a table; 0: never",
    )
    vacuum_hours: int = Field(
        default=VACUUM_HOURS,
        ge=1,
        validation_alias="DRIFTLINE_ARCHIVE_VACUUM_HOURS",
        description="How long files that the newest version does not name are kept",
    )
    parity_seconds: float = Field(
        default=600.0,
        ge=0,
        validation_alias="DRIFTLINE_PARITY_SECONDS",
        description="Time between two looks at the parity of served and recomputed feature values; 0: never",
    )
    parity_share: float = Field(
        default=0.02,
        gt=0,
        le=1,
        validation_alias="DRIFTLINE_PARITY_SHARE",
        description="Share of the predictions that are looked at",
    )
    parity_settle_seconds: float = Field(
        default=120.0,
        ge=0,
        validation_alias="DRIFTLINE_PARITY_SETTLE_SECONDS",
        description="Age at which a prediction is looked at: by then the archive has its events; more than two flushes",
    )
    parity_grace_seconds: float = Field(
        default=5.0,
        ge=0,
        validation_alias="DRIFTLINE_PARITY_GRACE_SECONDS",
        description="How far the feature store may be behind the log before its values count as different",
    )
