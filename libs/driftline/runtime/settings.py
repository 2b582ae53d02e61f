"""Settings of the platform: one frozen class, read from the environment. Services subclass it with their own."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftline.runtime.errors import ConfigurationError

if TYPE_CHECKING:  # contracts and project stand on runtime, not the other way round
    from driftline.contracts.topics import Topics
    from driftline.project import Project

#: Environment variables with these beginnings go to librdkafka: KAFKA_SASL_USERNAME -> sasl.username.
_KAFKA_PREFIXES = ("KAFKA_SECURITY_", "KAFKA_SASL_", "KAFKA_SSL_", "KAFKA_ENABLE_SSL_")


def _kafka_security() -> dict[str, str]:
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in os.environ.items()
        if name.startswith(_KAFKA_PREFIXES) and value
    }


class PlatformSettings(BaseSettings):
    """What every process of the platform needs to know. ``from_environment`` explains what is missing."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, validate_by_name=True, validate_by_alias=True
    )

    kafka_bootstrap_servers: str = Field(
        validation_alias="KAFKA_BOOTSTRAP_SERVERS", description="Kafka brokers, host:port separated by commas"
    )
    schema_registry_url: str = Field(
        validation_alias="SCHEMA_REGISTRY_URL", description="Root of the registry's Confluent-compatible API"
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        validation_alias="REDIS_URL",
        repr=False,
        description="Online store; redis+cluster://host:port names a node of a cluster",
    )
    kafka_security: dict[str, str] = Field(
        default_factory=_kafka_security, repr=False, description="TLS and SASL settings of librdkafka"
    )
    project: Path = Field(default=Path(), validation_alias="DRIFTLINE_PROJECT", description="Project folder")
    environment: str = Field(
        default="",
        validation_alias="DRIFTLINE_ENVIRONMENT",
        pattern=r"^([a-z][a-z0-9-]{0,30})?$",
        description="Prefix of all topics",
    )
    instance: str = Field(
        default="local-0",
        validation_alias="DRIFTLINE_INSTANCE",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of this process, stable over restarts",
    )
    host: str = Field(
        default="127.0.0.1", validation_alias="DRIFTLINE_HOST", description="Address to listen on"
    )
    port: int = Field(
        default=0,
        ge=0,
        le=65535,
        validation_alias="DRIFTLINE_PORT",
        description="Port to listen on; 0: a free one",
    )
    log_format: Literal["json", "pretty"] = Field(
        default="pretty", validation_alias="DRIFTLINE_LOG_FORMAT", description="How log lines are written"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", validation_alias="DRIFTLINE_LOG_LEVEL", description="Least level that is written"
    )
    models: Path = Field(
        default=Path(".driftline/models"),
        validation_alias="DRIFTLINE_MODELS",
        description="Folder of model bundles",
    )
    state: Path = Field(
        default=Path(".driftline"),
        validation_alias="DRIFTLINE_STATE",
        description="Folder for this machine's state",
    )

    @classmethod
    def from_environment(cls, **given: Any) -> Self:
        """Return the settings; raise ConfigurationError that names each wrong or missing variable."""
        try:
            return cls(**given)
        except ValidationError as error:
            lines = []
            for problem in error.errors(include_url=False):
                name = str(problem["loc"][0]) if problem["loc"] else "settings"
                if problem["type"] == "missing":
                    lines.append(f"{name} is not set ({cls.describe(name)})")
                else:
                    lines.append(f"{name}={problem['input']!r}: {problem['msg']} ({cls.describe(name)})")
            raise ConfigurationError("; ".join(lines)) from error

    @classmethod
    def describe(cls, name: str) -> str:
        """Return the description of a setting, by field name or environment variable."""
        for field_name, field in cls.model_fields.items():
            if name in {field_name, field.validation_alias}:
                return field.description or field_name
        return name

    def kafka_config(self) -> dict[str, Any]:
        """Return librdkafka's connection settings: brokers, TLS and SASL."""
        return {
            "bootstrap.servers": self.kafka_bootstrap_servers,
            "client.id": f"driftline-{self.instance}",
            **self.kafka_security,
        }

    def topics(self, project: "Project") -> "Topics":
        """Return the names of the project's topics in this environment."""
        from driftline.contracts.topics import Topics

        return Topics(project=project.name, environment=self.environment)
