"""Readers of the online store compute the partition that the broker's clients chose."""

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.features.keys import partition_of, partitions_of

KEYS = ["JFK", "EWR", "LGA", "a", "ab", "abc", "abcd", "abcde", "Zürich", "東京", "🛫"] + [
    f"entity-{n}" for n in range(300)
]


def test_partitions_are_those_of_librdkafkas_murmur2(kafka: str, unique: str) -> None:
    topic = f"{unique}.partitioner"
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, num_partitions=6, replication_factor=1)])[topic].result(30)
    sent: dict[str, int] = {}

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None
        key, partition = message.key(), message.partition()
        assert key is not None and partition is not None
        sent[bytes(key).decode()] = partition

    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})
    try:
        for key in KEYS:
            producer.produce(topic, key=key.encode(), value=b"", on_delivery=delivered)
        assert producer.flush(30) == 0
    finally:
        admin.delete_topics([topic])[topic].result(30)

    assert sent == {key: partition_of(key, 6) for key in KEYS}
    assert partitions_of(KEYS, 6).tolist() == [sent[key] for key in KEYS]
    assert set(sent.values()) == set(range(6))
