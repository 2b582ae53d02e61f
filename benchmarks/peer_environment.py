"""An environment of its own for each peer that is installed: made once with uv, from the pins in <peer>_peer.txt."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from driftline.runtime.errors import UnavailableError


class PeerMissingError(UnavailableError):
    """A peer cannot be installed here; the lines beside it are left out."""


def peer_python(folder: Path, peer: str) -> Path:
    """Return the Python of an environment with a peer's pinned packages, made below ``folder`` unless it is there.

    Raises
    ------
    PeerMissingError
        uv is not found, or it cannot install the packages.
    """
    requirements = Path(__file__).parent / f"{peer}_peer.txt"
    pins = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    home = folder.absolute() / f"{peer}-{pins}"
    python, done = home / "bin" / "python", home / "installed"
    if done.is_file():
        return python
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise PeerMissingError(f"the comparison with {peer} needs uv to make its environment: pip install uv")
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)],
        [uv, "pip", "sync", "--quiet", "--python", str(python), str(requirements)],
    ):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise PeerMissingError(f"the environment of {peer} cannot be made: {made.stderr.strip()}")
    done.touch()
    return python
