"""A loop that does not come round ends its process, and says where it stood."""

import subprocess
import sys
import threading
import time

from driftline.runtime.errors import EXIT_STALLED
from driftline.streaming.stall_guard import StallGuard

HANGING = """
import threading
from driftline.streaming.stall_guard import StallGuard

def a_call_that_does_not_come_back():
    threading.Event().wait()

with StallGuard(0.2):
    a_call_that_does_not_come_back()
"""


def test_a_hanging_process_ends_and_tells_where() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == EXIT_STALLED
    assert "a_call_that_does_not_come_back" in done.stderr


def test_a_loop_that_turns_goes_on() -> None:
    ended = threading.Event()
    with StallGuard(1.5, end=lambda _reason: ended.set()) as guard:
        for _ in range(30):
            time.sleep(0.1)
            guard.turned()
        assert not ended.is_set()
        assert ended.wait(30)
