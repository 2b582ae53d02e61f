from pathlib import Path

import pytest
from pydantic import ValidationError

from driftline.runtime.errors import ConfigurationError
from driftline.runtime.settings import PlatformSettings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("DRIFTLINE_", "KAFKA_", "SCHEMA_REGISTRY", "REDIS")):
            monkeypatch.delenv(name)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "http://registry/apis")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        PlatformSettings.from_environment()
    assert "KAFKA_BOOTSTRAP_SERVERS is not set" in str(caught.value)
    assert "SCHEMA_REGISTRY_URL is not set" in str(caught.value)


@pytest.mark.usefixtures("servers")
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_PORT", "many")
    monkeypatch.setenv("DRIFTLINE_ENVIRONMENT", "no.dots")
    with pytest.raises(ConfigurationError, match=r"DRIFTLINE_ENVIRONMENT='no.dots'.*DRIFTLINE_PORT='many'"):
        PlatformSettings.from_environment()


@pytest.mark.usefixtures("servers")
def test_defaults_listen_on_loopback() -> None:
    settings = PlatformSettings.from_environment()
    assert (settings.host, settings.port, settings.state) == ("127.0.0.1", 0, Path(".driftline"))
    assert settings.kafka_config() == {"bootstrap.servers": "kafka:9092", "client.id": "driftline-local-0"}


@pytest.mark.usefixtures("servers")
def test_security_passes_through_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hush")
    monkeypatch.setenv("KAFKA_SSL_CA_LOCATION", "/ca.pem")
    settings = PlatformSettings.from_environment()
    config = settings.kafka_config()
    assert config["security.protocol"] == "SASL_SSL"
    assert config["sasl.password"] == "hush"
    assert config["ssl.ca.location"] == "/ca.pem"
    assert "hush" not in repr(settings)


@pytest.mark.usefixtures("servers")
def test_settings_are_frozen() -> None:
    settings = PlatformSettings.from_environment(port=1)
    assert settings.port == 1
    with pytest.raises(ValidationError):
        settings.port = 2
