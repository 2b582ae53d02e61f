"""One counting service, nothing going wrong."""

import json
import signal
import time

from aiokafka.codec import has_lz4
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions, NewTopic

from driftline.runtime.errors import EXIT_CEILING, EXIT_CONFIGURATION, EXIT_GAP, EXIT_STALLED
from tests.integration.control.counting_service import HANGING
from tests.integration.control.harness import Counting


def test_it_counts_and_says_so(counting: Counting) -> None:
    counting.publish(300)
    started = time.monotonic()
    counting.start()
    counting.wait_ready()
    print(f"ready after {time.monotonic() - started:.1f} s")
    counting.wait_done()
    counting.check_exact()
    assert counting.check_ticks() > 0
    assert counting.duplicates() == 0
    assert "driftline_lag_messages" in counting.http("/metrics")[1]
    assert json.loads(counting.http("/readyz")[1])["components"]["stream"]["ready"]
    process = counting.processes["counter-0"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not list((counting.state / "run").glob("*.json"))


def test_a_process_that_stands_still_ends_itself(counting: Counting) -> None:
    counting.environment["DRIFTLINE_STALL_SECONDS"] = "4"
    counting.start()
    counting.publish(20)
    counting.wait_ready()
    counting.publish_one("key-0", HANGING)  # the event loop is blocked; only a thread can notice
    assert counting.processes["counter-0"].wait(30) == EXIT_STALLED
    assert "waits for" in counting.log().read_text()
    counting.publish(20)
    counting.wait_done()
    counting.check_exact()


def test_a_flood_of_bad_messages_stops_it_for_good(counting: Counting) -> None:
    counting.environment |= {"DRIFTLINE_DEAD_LETTER_MINIMUM": "20", "DRIFTLINE_DEAD_LETTER_WINDOW": "20"}
    for number in range(40):
        counting.publish_bad(b"\x00poison %d" % number)
    counting.start()
    assert counting.processes["counter-0"].wait(40) == EXIT_CEILING
    letters = len(counting.read("dead-letters"))
    assert 10 <= letters < 40
    counting.environment["DRIFTLINE_DEAD_LETTER_SHARE"] = "1"
    counting.start()
    counting.wait_done()
    counting.check_dead_letters()


def test_records_that_were_deleted_unread_are_a_gap(counting: Counting) -> None:
    counting.publish(60)
    counting.start()
    counting.wait_done()
    counting.kill()
    counting.publish(60)
    counting.delete_before_end("events")
    counting.publish(3)
    counting.start()
    assert counting.processes["counter-0"].wait(60) == EXIT_GAP


def test_a_changelog_with_other_partitions_is_refused(counting: Counting) -> None:
    topic = counting.topic("counter.counts-changelog")
    counting.admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(20)
    counting.start()
    assert counting.processes["counter-0"].wait(30) == EXIT_CONFIGURATION
    assert "has 2 partitions, its inputs have 3" in counting.log().read_text()
    counting.admin.create_partitions([NewPartitions(topic, 3)])[topic].result(20)
    counting.publish(5)
    counting.start()
    counting.wait_done()
    counting.check_exact()


def test_compressed_topics_are_read_or_refused_with_the_reason(counting: Counting) -> None:
    producer = Producer(
        {**counting.config, "compression.type": "lz4", "linger.ms": 200, "partitioner": "murmur2_random"}
    )
    counting.publish(300, producer=producer)
    counting.start()
    if has_lz4():
        counting.wait_done()
        counting.check_exact()
    else:
        assert counting.processes["counter-0"].wait(60) == EXIT_CONFIGURATION
        assert "install cramjam" in counting.log().read_text()
