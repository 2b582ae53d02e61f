"""A breaker opens by the share of failed calls in its window, and closes after probes that succeed."""

from hypothesis import given
from hypothesis import strategies as st

from driftline.project import BreakerRule
from driftline.serving.breaker import Breaker, BreakerState


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(rule: BreakerRule, time: Time) -> Breaker:
    breaker = Breaker(rule, time)
    for _ in range(rule.least_calls):
        breaker.failed("out of beans")
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_too_few_calls_open_nothing() -> None:
    breaker = Breaker(BreakerRule(least_calls=3))
    assert [breaker.failed("no") for _ in range(3)] == [False, False, True]
    assert (breaker.state, breaker.why, breaker.allows()) == (BreakerState.OPEN, "no", False)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 12), st.sampled_from([0.2, 0.5, 1.0]))
def test_it_opens_at_the_first_window_with_the_share_of_failures(
    calls: list[bool], window: int, share: float
) -> None:
    rule = BreakerRule(window=window, least_calls=min(4, window), failure_share=share)
    breaker = Breaker(rule)
    for number, failed in enumerate(calls, 1):
        last = calls[max(0, number - window) : number]
        enough = len(last) >= rule.least_calls and sum(last) >= share * len(last)
        if failed:
            assert breaker.failed("no") == enough
        else:
            breaker.succeeded()
        if failed and enough:
            return
        assert breaker.state is BreakerState.CLOSED


def test_one_probe_at_a_time_after_the_pause_and_enough_of_them_close_it() -> None:
    time = Time()
    breaker = opened(BreakerRule(probes=2), time)
    time.now = 9.9
    assert not breaker.allows()
    time.now = 10.0
    assert (breaker.allows(), breaker.allows()) == (True, False)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.succeeded()
    assert breaker.allows()
    assert breaker.succeeded()
    assert (breaker.state, breaker.why) == (BreakerState.CLOSED, "")


def test_a_probe_that_fails_opens_it_again_for_a_pause_and_forgets_those_that_passed() -> None:
    time = Time()
    breaker = opened(BreakerRule(probes=2), time)
    time.now = 10.0
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert not breaker.failed("again")
    assert (breaker.state, breaker.why) == (BreakerState.OPEN, "again")
    time.now = 19.9
    assert not breaker.allows()
    time.now = 20.0
    assert breaker.allows()
    assert not breaker.succeeded()


def test_a_probe_that_never_comes_back_is_followed_by_another() -> None:
    time = Time()
    breaker = opened(BreakerRule(), time)
    time.now = 10.0
    assert breaker.allows()
    time.now = 20.0
    assert breaker.allows()


def test_calls_from_before_it_opened_do_not_count() -> None:
    breaker = opened(BreakerRule(), Time())
    assert not breaker.failed("late")
    assert not breaker.succeeded()
    assert (breaker.state, breaker.why) == (BreakerState.OPEN, "out of beans")
