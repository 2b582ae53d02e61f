"""Another state of a project: a folder, or the same folder at a revision of its git repository."""

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driftline.project.loading import FILE
from driftline.runtime.errors import ConfigurationError


@contextmanager
def other_state(folder: Path, against: str) -> Iterator[Path]:
    """Give the folder that ``against`` names for as long as the block runs.

    Raises
    ------
    ConfigurationError
        It is neither a project's folder nor a revision that has the folder.
    """
    if (Path(against) / FILE).is_file():
        yield Path(against).resolve()
        return
    folder = folder.resolve()
    if Path(against).is_dir():
        raise ConfigurationError(f"--against {against}: the folder has no {FILE}; name a project's folder")
    with tempfile.TemporaryDirectory(prefix="driftline-check-") as place:
        target = Path(place) / folder.name
        content = _archive(folder, against)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(target, filter=_inside)  # noqa: S202  _inside is the data filter, and more
        if not (target / FILE).is_file():
            raise ConfigurationError(
                f"--against {against}: {folder} had no {FILE} then; name a later revision"
            )
        yield target


def _inside(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Leave out what leads out of the folder, like an absolute link: no file of the project's own."""
    try:
        return tarfile.data_filter(member, folder)
    except tarfile.FilterError:
        return None


def _archive(folder: Path, revision: str) -> bytes:
    what = f"--against {revision}: is no folder, and no git revision that has {folder}"
    commit = _git(
        folder, what, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    return _git(folder, what, "archive", "--format=tar", commit.decode().strip())


def _git(folder: Path, what: str, *words: str) -> bytes:
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_")
    }  # in a git hook
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=True, env=plain)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{what}: git is not installed; install it, or name a folder") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ConfigurationError(f"{what}{f' ({reason})' if reason else ''}; name another") from error
    return done.stdout
