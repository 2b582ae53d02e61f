"""The reader sees what is committed, from where it is told, to the end."""

import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.playback.topic_reading import TopicReader
from driftline.runtime.errors import ConfigurationError


@pytest.fixture
def topic(kafka: str, unique: str) -> str:
    name = f"{unique}.reading"
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.create_topics([NewTopic(name, 2, 1)]).values():
        future.result(20)
    until = time.monotonic() + 20
    while name not in admin.list_topics(timeout=20).topics and time.monotonic() < until:
        time.sleep(0.05)
    return name


def produce(kafka: str, topic: str, count: int, *, commit: bool | None = None) -> None:
    """Produce plainly, or in a transaction that is committed or aborted."""
    config = {"bootstrap.servers": kafka, **({"transactional.id": topic} if commit is not None else {})}
    producer = Producer(config)
    if commit is not None:
        producer.init_transactions(20)
        producer.begin_transaction()
    for number in range(count):
        producer.produce(topic, str(number), partition=number % 2)
    producer.flush(20)
    if commit is not None:
        (producer.commit_transaction if commit else producer.abort_transaction)(20)


def test_everything_committed_is_read_once_and_the_end_is_noticed(kafka: str, topic: str) -> None:
    produce(kafka, topic, 2_500)
    produce(kafka, topic, 100, commit=False)
    produce(kafka, topic, 10, commit=True)
    with TopicReader({"bootstrap.servers": kafka}, [topic]) as reader:
        assert len(list(reader.read_to_end())) == 2_510


def test_an_empty_topic_is_at_its_end(kafka: str, topic: str) -> None:
    with TopicReader({"bootstrap.servers": kafka}, [topic]) as reader:
        assert list(reader.read_to_end()) == []


def test_reading_starts_where_it_is_told(kafka: str, topic: str) -> None:
    produce(kafka, topic, 100)
    with TopicReader({"bootstrap.servers": kafka}, [topic]) as reader:
        began = reader.ends()
        assert began == {(topic, 0): 50, (topic, 1): 50}
    produce(kafka, topic, 6)
    with TopicReader({"bootstrap.servers": kafka}, [topic], positions=began) as reader:
        assert sorted(message.value() or b"" for message in reader.read_to_end()) == [
            b"%d" % i for i in range(6)
        ]
        reader.seek_back(2)
        assert len(list(reader.read_to_end())) == 4


def test_an_unknown_topic_is_said(kafka: str, unique: str) -> None:
    with pytest.raises(ConfigurationError, match="no topic"):
        TopicReader({"bootstrap.servers": kafka}, [f"{unique}.nothing"])
