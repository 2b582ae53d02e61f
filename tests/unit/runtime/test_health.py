from driftline.runtime.health import Health


class Hand:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_ready_when_every_component_is() -> None:
    health = Health("s", "s-0")
    assert not health.ready
    health.set("broker", True)
    health.set("store", False, "no answer")
    assert not health.ready
    assert health.report()["components"]["store"] == {"ready": False, "detail": "no answer"}
    health.set("store", True)
    assert health.ready
    assert health.last_error == "store: no answer"  # kept: what was it?


def test_readiness_is_progress() -> None:
    hand = Hand()
    health = Health("s", "s-0", now=hand)
    health.watch("loop", 5.0)
    assert health.ready
    hand.now += 6
    assert not health.ready
    assert health.alive
    assert health.report()["components"]["loop"]["detail"] == "no progress for more than 5 s"
    health.progress("loop")
    assert health.ready


def test_a_vital_component_that_stands_still_asks_for_a_restart() -> None:
    hand = Hand()
    health = Health("s", "s-0", now=hand)
    health.watch("loop", 5.0, vital=True)
    hand.now += 6
    assert not health.alive
    health.progress("loop")
    assert health.alive


def test_failed_for_good_and_stopping() -> None:
    health = Health()
    health.set("broker", True)
    health.stop()
    assert not health.ready
    assert health.alive
    health.fail("broker", "fenced")
    assert not health.alive
    assert health.last_error == "broker: fenced"
