"""Whatever kills it at whatever moment: every event is counted once, and every output is there.

``DRIFTLINE_CONTROL_KILLS`` raises the number of kills.
"""

import os
import random
import signal
import time

import pytest

from tests.integration.control.harness import Counting

KILLS = int(os.environ.get("DRIFTLINE_CONTROL_KILLS", "8"))


def feed(counting: Counting, *, seconds: float, bad: bool = False) -> None:
    """Publish a little all the time, and start again what has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        counting.publish(random.randrange(1, 8))
        if bad and random.random() < 0.2:
            counting.publish_bad(b"\x00poison %d" % len(counting.bad))
        counting.keep_up()
        time.sleep(0.05)


@pytest.mark.parametrize("widen", ["0", "1.0"], ids=["as it is", "with Faust's race widened"])
def test_killed_at_random_moments(counting: Counting, widen: str) -> None:
    counting.environment["COUNTER_WIDEN"] = widen
    counting.publish(100)
    counting.start()
    for _ in range(KILLS // 2 if widen == "0" else KILLS - KILLS // 2):
        feed(counting, seconds=random.uniform(1.0, 9.0), bad=True)
        counting.kill()
    counting.wait_done()
    counting.check_exact()
    counting.check_dead_letters()
    assert counting.check_ticks() > 0
    print(
        f"restarts {counting.restarts}, passed over {counting.skipped()}, duplicates {counting.duplicates()}"
    )


def test_a_handler_that_breaks_now_and_then(counting: Counting) -> None:
    counting.environment["COUNTER_BROKEN"] = "0.02"
    counting.start()
    feed(counting, seconds=5)
    counting.publish(100)
    counting.wait_done(seconds=240)
    counting.check_exact()
    assert counting.restarts > 0
    assert counting.duplicates() > 0  # sent, then broken: sent again under the same id
    assert "this handler breaks now and then" in counting.log().read_text()


def test_two_workers_lose_each_other(counting: Counting) -> None:
    counting.environment["COUNTER_WIDEN"] = "0.6"
    counting.publish(200)
    counting.start("counter-0")
    feed(counting, seconds=4)
    counting.start("counter-1")  # joins: partitions move
    feed(counting, seconds=8)
    counting.wait_ready("counter-1")
    counting.processes["counter-0"].send_signal(
        signal.SIGSTOP
    )  # a zombie: its partitions move, then it wakes
    feed(counting, seconds=15)
    counting.processes["counter-0"].send_signal(signal.SIGCONT)
    feed(counting, seconds=5)
    counting.kill("counter-1")
    feed(counting, seconds=3)
    counting.processes["counter-1"].send_signal(signal.SIGTERM)
    feed(counting, seconds=14)
    counting.wait_done()
    counting.check_exact()
    assert counting.check_ticks() > 0
    assert "did not run for" in counting.log("counter-0").read_text()
    print(
        f"restarts {counting.restarts}, passed over {counting.skipped()}, duplicates {counting.duplicates()}"
    )


def test_only_what_is_committed_counts(counting: Counting) -> None:
    counting.start()
    counting.publish_in_transactions(60)
    counting.wait_ready()
    counting.publish_in_transactions(60)
    counting.kill()
    counting.keep_up()
    counting.publish_in_transactions(30)
    counting.wait_done()
    counting.check_exact()
    assert counting.skipped() == 0


@pytest.mark.parametrize("without", ["", "freeze,seek"], ids=["all rails", "the ledger alone"])
def test_a_standby_takes_over_a_backlog(counting: Counting, without: str) -> None:
    """Where Faust drops most: partitions come to a process whose flow is on. Without any rail 5% were lost here."""
    counting.environment |= {"COUNTER_WIDEN": "1.0", "COUNTER_WITHOUT": without}
    counting.publish(50)
    for number in range(4):  # one more than there are partitions
        counting.start(f"counter-{number}")
    feed(counting, seconds=15)
    counting.kill(random.choice(list(counting.processes)))
    for _ in range(100):
        counting.publish(5)
        time.sleep(0.14)
    counting.wait_done()
    counting.check_exact()
    print(
        f"restarts {counting.restarts}, passed over {counting.skipped()}, duplicates {counting.duplicates()}"
    )
