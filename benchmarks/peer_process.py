"""A peer's process that is asked with a line and answers with a line of JSON."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class PeerProcess:
    """Started at once; ended by ``close``. What it writes beside its answers goes to ``log``."""

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self) -> dict[str, Any]:
        """Send a line and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Return the next answer; raise RuntimeError where the process has ended without one."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"the peer ended without an answer; it wrote: {self._log.read_text()[-2_000:]}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
