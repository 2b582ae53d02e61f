"""Create a project's topics on a broker."""

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from driftline.contracts.topics import Topics
from driftline.project import Project
from driftline.runtime.errors import ConfigurationError, UnavailableError

_TIMEOUT = 30.0


def create_topics(
    config: Mapping[str, Any], project: Project, topics: Topics, *, replication: int = 1
) -> list[str]:
    """Create what is missing of a project's topics and wait until each partition has a leader.

    Returns the names of the topics that were created.

    Raises
    ------
    ConfigurationError
        Where a topic exists with another number of partitions: features are addressed by partition.
    UnavailableError
        Where the broker does not answer.
    """
    admin = AdminClient(dict(config))
    wanted = topics.all_of(project)
    try:
        existing = admin.list_topics(timeout=_TIMEOUT).topics
    except KafkaException as error:
        raise UnavailableError(
            f"the broker at {config.get('bootstrap.servers')} does not answer: {error}"
        ) from error
    for topic, stream in wanted.items():
        if topic in existing and len(existing[topic].partitions) != stream.partitions:
            found = len(existing[topic].partitions)
            msg = (
                f"topic {topic} has {found} partitions, {stream.partitions} are declared; features are addressed by "
                f"partition, so declare {found} or make the topic anew and rebuild the store"
            )
            raise ConfigurationError(msg)
    missing = [
        NewTopic(
            topic,
            num_partitions=stream.partitions,
            replication_factor=replication,
            config={
                "retention.ms": str(stream.retention_ms),
                "cleanup.policy": stream.cleanup,
                "message.timestamp.type": "CreateTime",
            },
        )
        for topic, stream in wanted.items()
        if topic not in existing
    ]
    for topic, future in (admin.create_topics(missing) if missing else {}).items():
        try:
            future.result(_TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise UnavailableError(f"topic {topic} was not created: {error}") from error
    _wait_for_leaders(admin, wanted)
    return [topic.topic for topic in missing]


def _wait_for_leaders(admin: AdminClient, wanted: Mapping[str, Any]) -> None:
    until = time.monotonic() + _TIMEOUT
    while time.monotonic() < until:
        found = admin.list_topics(timeout=_TIMEOUT).topics
        if all(
            topic in found
            and len(found[topic].partitions) == stream.partitions
            and all(partition.leader >= 0 for partition in found[topic].partitions.values())
            for topic, stream in wanted.items()
        ):
            return
        time.sleep(0.1)
    raise UnavailableError("the topics were created, but their partitions have no leader yet")
