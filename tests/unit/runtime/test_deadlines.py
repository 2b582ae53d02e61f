"""One timer ends each item in time, and none that has ended before."""

import asyncio
import time

from driftline.runtime.deadlines import Deadlines


def test_each_is_late_in_its_own_time_and_what_ended_is_not() -> None:
    late: dict[str, float] = {}

    async def story() -> None:
        deadlines = Deadlines[str](0.2, lambda item: late.update({item: time.perf_counter()}))
        begun = {}
        for name in ("first", "ended", "second", "third"):
            begun[name] = time.perf_counter()
            deadlines.begin(name, begun[name])
            await asyncio.sleep(0.05)
        deadlines.end("ended")
        await asyncio.sleep(0.4)
        assert list(late) == ["first", "second", "third"]
        assert all(0.2 <= late[name] - begun[name] < 0.25 for name in late)
        late.clear()
        deadlines.begin("next", time.perf_counter())  # when nothing was waited for any more
        deadlines.end("unknown")
        await asyncio.sleep(0.25)
        assert list(late) == ["next"]

    asyncio.run(story())


def test_what_is_late_may_end_others_and_begin_anew() -> None:
    late: list[int] = []

    async def story() -> None:
        def over(item: int) -> None:
            late.append(item)
            deadlines.end(item)
            if item < 3:
                deadlines.begin(item + 1, time.perf_counter())

        deadlines = Deadlines[int](0.02, over)
        deadlines.begin(0, time.perf_counter())
        await asyncio.sleep(0.3)

    asyncio.run(story())
    assert late == [0, 1, 2, 3]
