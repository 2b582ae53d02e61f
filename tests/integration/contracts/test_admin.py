"""Topics on the real broker are what the manifest says."""

from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from driftline.contracts.admin import create_topics
from driftline.contracts.topics import Topics
from driftline.project import Project, load_project
from driftline.runtime.errors import ConfigurationError

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


@pytest.fixture
def flights(unique: str) -> Project:
    return replace(load_project(FLIGHTS), name=unique)


def test_topics_are_made_once_with_the_manifests_settings(kafka: str, flights: Project) -> None:
    config = {"bootstrap.servers": kafka}
    topics = Topics(flights.name, "dev")
    wanted = topics.all_of(flights)
    assert sorted(create_topics(config, flights, topics)) == sorted(wanted)
    assert create_topics(config, flights, topics) == []
    admin = AdminClient(config)
    found = admin.list_topics(timeout=10).topics
    for topic, stream in wanted.items():
        assert len(found[topic].partitions) == stream.partitions
        resource = ConfigResource(ResourceType.TOPIC, topic)
        settings = admin.describe_configs([resource])[resource].result(10)
        assert settings["retention.ms"].value == str(stream.retention_ms)
        assert settings["cleanup.policy"].value == stream.cleanup
        assert settings["message.timestamp.type"].value == "CreateTime"


def test_another_number_of_partitions_is_refused(kafka: str, flights: Project) -> None:
    config, topics = {"bootstrap.servers": kafka}, Topics(flights.name)
    create_topics(config, flights, topics)
    weather = replace(flights.event_types["weather"], partitions=3)
    changed = replace(flights, event_types={**flights.event_types, "weather": weather})
    with pytest.raises(ConfigurationError, match=r"weather has 2 partitions, 3 are declared"):
        create_topics(config, changed, topics)
