"""Settings of the ingest service."""

from pydantic import Field

from driftline.runtime.settings import PlatformSettings


class IngestSettings(PlatformSettings):
    """The platform's settings and ingest's own."""

    max_events: int = Field(
        default=1_000,
        ge=1,
        le=10_000,
        validation_alias="DRIFTLINE_INGEST_MAX_EVENTS",
        description="Events in one list",
    )
    max_body_bytes: int = Field(
        default=4_000_000,
        ge=1_000,
        validation_alias="DRIFTLINE_INGEST_MAX_BODY_BYTES",
        description="Bytes in one body",
    )
    max_in_flight: int = Field(
        default=20_000,
        ge=10_000,  # the longest list must fit, or it could never be sent
        validation_alias="DRIFTLINE_INGEST_MAX_IN_FLIGHT",
        description="Events that may wait for the broker; more are answered 429",
    )
    delivery_seconds: float = Field(
        default=5.0,
        gt=0,
        validation_alias="DRIFTLINE_INGEST_DELIVERY_SECONDS",
        description="How long the broker may take to acknowledge; then 503",
    )
    deadline_seconds: float = Field(
        default=10.0,
        gt=0,
        validation_alias="DRIFTLINE_INGEST_DEADLINE_SECONDS",
        description="How long a request may take; then 503",
    )
