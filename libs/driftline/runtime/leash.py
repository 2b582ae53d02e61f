"""Become a command that dies with its parent: ``leash.py <parent pid> command...``, run with ``python -I -S``.

The kernel sends SIGKILL when the parent ends, however it ends, so nothing is left behind. Done by this small
program rather than between fork and exec, where a process with threads may not safely run Python.
"""

import os
import sys


def main() -> None:
    """Ask for the signal, then become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig, sigkill = 1, 9
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, sigkill)
    if os.getppid() != int(parent):  # it ended before we asked
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the caller's own command, without a shell


if __name__ == "__main__":
    main()
