"""The process behind `driftline up`: ``python -P -m driftline.cli.daemon <project> <state> <service>...``."""

import signal
import sys
import threading
from pathlib import Path

from driftline.cli.local_platform import LocalPlatform
from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError, DriftlineError


class _Stopped(BaseException):
    """A signal came while the platform was still starting."""


def run(platform: LocalPlatform) -> None:
    """Run the platform until SIGTERM or SIGINT, then stop it in order."""
    stop = threading.Event()
    starting = True

    def told(_signal: int, _frame: object) -> None:
        nonlocal starting
        stop.set()
        if starting:
            starting = False  # a second signal must not break the stop off
            raise _Stopped

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    try:
        platform.start(lambda text: print(text, file=sys.stderr, flush=True))
    except _Stopped:
        return
    starting = False
    try:
        platform.run_until(stop)
    finally:
        platform.stop()


def main() -> int:
    """Read the arguments and run."""
    project, state, *services = sys.argv[1:]
    try:
        run(LocalPlatform(Path(project), Path(state), services))
    except DriftlineError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
