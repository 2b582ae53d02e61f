"""The ceiling on dead letters."""

import pytest

from driftline.runtime.errors import DeadLetterCeilingError
from driftline.streaming.dead_letters import DeadLetterCeiling


def test_all_bad_stops_after_the_minimum() -> None:
    ceiling = DeadLetterCeiling(share=0.5, window=1_000, minimum=200)
    for _ in range(199):
        ceiling.check(total=1, bad=1)
    with pytest.raises(DeadLetterCeilingError, match="200 of the last 200"):
        ceiling.check(total=1, bad=1)


def test_a_few_bad_ones_among_many_go_on_forever() -> None:
    ceiling = DeadLetterCeiling()
    for _ in range(1_000):
        ceiling.check(total=10_000, bad=4_999)


def test_good_history_does_not_hide_a_poisoned_present() -> None:
    ceiling = DeadLetterCeiling(window=1_000)
    for _ in range(100):
        ceiling.check(total=10_000, bad=0)
    with pytest.raises(DeadLetterCeilingError):
        ceiling.check(total=1_000, bad=501)


def test_small_batches_are_seen_together() -> None:
    ceiling = DeadLetterCeiling(window=1_000, minimum=200)
    with pytest.raises(DeadLetterCeilingError):
        for number in range(1_000):
            ceiling.check(total=10, bad=0 if number < 50 else 9)
