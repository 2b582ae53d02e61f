"""The broker's security settings: from librdkafka's names to those of Faust and aiokafka."""

import ssl
from collections.abc import Mapping
from typing import Any

from faust.auth import Credentials, SASLCredentials, SSLCredentials
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from driftline.runtime.errors import ConfigurationError

_PASSWORD_MECHANISMS = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})
_TLS = frozenset(
    {
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.key.location",
        "ssl.key.password",
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
    }
)
_KNOWN = _TLS | {
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
}


def faust_credentials(kafka_security: Mapping[str, str]) -> Credentials | None:
    """Return Faust's credentials for librdkafka's settings; None where the connection is plain.

    Raises
    ------
    ConfigurationError
        For a setting or mechanism that aiokafka does not have, or a file that cannot be read.
    """
    unknown = sorted(set(kafka_security) - _KNOWN)
    if unknown:
        names = ", ".join(f"KAFKA_{name.upper().replace('.', '_')}" for name in unknown)
        msg = f"the control plane's Kafka client (aiokafka) has no counterpart of {names}: unset it for this service"
        raise ConfigurationError(msg)
    protocol = kafka_security.get("security.protocol", "plaintext").lower()
    if protocol == "plaintext":
        return None
    if protocol == "ssl":
        return SSLCredentials(_tls_context(kafka_security))
    if protocol in {"sasl_plaintext", "sasl_ssl"}:
        context = _tls_context(kafka_security) if protocol == "sasl_ssl" else None
        return _sasl(kafka_security, context)
    msg = f"KAFKA_SECURITY_PROTOCOL={protocol}: write plaintext, ssl, sasl_plaintext or sasl_ssl"
    raise ConfigurationError(msg)


def aiokafka_security(kafka_security: Mapping[str, str]) -> dict[str, Any]:
    """Return aiokafka's keyword arguments for librdkafka's settings; raises like ``faust_credentials``."""
    return dict(credentials_to_aiokafka_auth(faust_credentials(kafka_security)))


def _sasl(settings: Mapping[str, str], context: ssl.SSLContext | None) -> SASLCredentials:
    mechanism = settings.get("sasl.mechanisms", settings.get("sasl.mechanism", "GSSAPI")).upper()
    if mechanism not in _PASSWORD_MECHANISMS:
        msg = (
            f"KAFKA_SASL_MECHANISM={mechanism} is not available to the control plane: use one of "
            f"{', '.join(sorted(_PASSWORD_MECHANISMS))}"
        )
        raise ConfigurationError(msg)
    if "sasl.username" not in settings or "sasl.password" not in settings:
        raise ConfigurationError(
            f"KAFKA_SASL_MECHANISM={mechanism}: set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
        )
    return SASLCredentials(
        username=settings["sasl.username"],
        password=settings["sasl.password"],
        mechanism=mechanism,
        ssl_context=context,
    )


def _tls_context(settings: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=settings.get("ssl.ca.location"), cadata=settings.get("ssl.ca.pem")
        )
        if "ssl.certificate.location" in settings:
            context.load_cert_chain(
                settings["ssl.certificate.location"],
                settings.get("ssl.key.location"),
                settings.get("ssl.key.password"),
            )
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"KAFKA_SSL_*: a certificate or key cannot be loaded: {error}") from error
    if settings.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        context.check_hostname = False
    if settings.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
