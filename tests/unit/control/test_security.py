"""librdkafka's security settings in aiokafka's words, or a refusal that names the variable."""

import ssl

import pytest

from driftline.control.security import aiokafka_security, faust_credentials
from driftline.runtime.errors import ConfigurationError


def test_plain() -> None:
    assert faust_credentials({}) is None
    assert aiokafka_security({"security.protocol": "PLAINTEXT"}) == {"security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("name", ["sasl.mechanism", "sasl.mechanisms"])
def test_passwords(mechanism: str, name: str) -> None:
    settings = {"security.protocol": "sasl_ssl", name: mechanism, "sasl.username": "u", "sasl.password": "p"}
    found = aiokafka_security(settings)
    context = found.pop("ssl_context")
    assert found == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert (
        aiokafka_security({**settings, "security.protocol": "SASL_PLAINTEXT"})["security_protocol"]
        == "SASL_PLAINTEXT"
    )


def test_tls_as_told() -> None:
    assert aiokafka_security({"security.protocol": "ssl"})["ssl_context"].check_hostname
    lax = {"security.protocol": "ssl", "ssl.endpoint.identification.algorithm": "none"}
    assert not aiokafka_security(lax)["ssl_context"].check_hostname
    blind = {"security.protocol": "ssl", "enable.ssl.certificate.verification": "false"}
    assert aiokafka_security(blind)["ssl_context"].verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"security.protocol": "carrier pigeon"}, "KAFKA_SECURITY_PROTOCOL"),
        ({"security.protocol": "sasl_ssl", "sasl.mechanism": "OAUTHBEARER"}, "OAUTHBEARER is not available"),
        ({"security.protocol": "sasl_ssl"}, "GSSAPI is not available"),
        ({"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN"}, "set KAFKA_SASL_USERNAME"),
        ({"ssl.keystore.location": "x"}, "KAFKA_SSL_KEYSTORE_LOCATION"),
        ({"security.protocol": "ssl", "ssl.ca.location": "/nowhere"}, "cannot be loaded"),
        ({"security.protocol": "ssl", "ssl.certificate.location": "/nowhere"}, "cannot be loaded"),
    ],
)
def test_what_there_is_no_word_for(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        faust_credentials(settings)
