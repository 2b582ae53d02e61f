"""The topics that a control app makes for itself: changelogs and ticks."""

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from driftline.runtime.errors import ConfigurationError, UnavailableError

_TIMEOUT = 30.0
_BROKERS_CHOICE = -1
#: A changelog is read whole at each start and rebalance: keep it short.
CHANGELOG = {
    "cleanup.policy": "compact",
    "segment.ms": "600000",
    "segment.bytes": "16777216",
    "min.cleanable.dirty.ratio": "0.1",
}
#: An old tick says nothing.
TICKS = {"cleanup.policy": "delete", "retention.ms": "3600000", "segment.ms": "600000"}


def create_own_topics(
    kafka: Mapping[str, Any], counts: Mapping[str, int], settings: Mapping[str, Mapping[str, str]]
) -> None:
    """Create what is missing of topics with these partition counts and settings.

    Raises
    ------
    ConfigurationError
        One exists with another number of partitions: state is kept by partition.
    UnavailableError
        The broker does not answer.
    """
    admin = AdminClient(dict(kafka))
    try:
        existing = admin.list_topics(timeout=_TIMEOUT).topics
    except KafkaException as error:
        raise UnavailableError(f"the broker does not answer: {error}") from error
    for topic, count in counts.items():
        if topic in existing and len(existing[topic].partitions) != count:
            msg = (
                f"{topic} has {len(existing[topic].partitions)} partitions, its inputs have {count}; state is kept by "
                f"partition. Give the inputs their old count, or delete {topic} and rebuild the state from the inputs"
            )
            raise ConfigurationError(msg)
    missing = [
        NewTopic(topic, count, _BROKERS_CHOICE, config=dict(settings[topic]))
        for topic, count in counts.items()
        if topic not in existing
    ]
    for topic, future in (admin.create_topics(missing) if missing else {}).items():
        try:
            future.result(_TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise UnavailableError(f"topic {topic} was not created: {error}") from error
