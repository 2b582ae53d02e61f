"""Kafka, a schema registry and Valkey, started for you: real servers, no Java or Docker needed."""

from driftline.embedded.stack import PARTS, EmbeddedStack, running_environment

__all__ = ["PARTS", "EmbeddedStack", "running_environment"]
