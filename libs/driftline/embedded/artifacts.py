"""The Maven files that the embedded stack runs on, as the committed lock names them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

LOCK = Path(__file__).with_name("artifacts.lock.json")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Artifact:
    """One file of a Maven repository, with what it must be: its size and SHA-256.

    >>> Artifact(group="org.x", name="y", version="1", sha256="", size=0, classifier="all").path.as_posix()
    'org/x/y/1/y-1-all.jar'
    """

    group: str
    name: str
    version: str
    sha256: str
    size: int
    classifier: str = ""
    packaging: str = "jar"

    @property
    def path(self) -> PurePosixPath:
        """Where the file is below a repository's root."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        file = f"{self.name}-{self.version}{classifier}.{self.packaging}"
        return PurePosixPath(*self.group.split("."), self.name, self.version, file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Kafka's class path, in order, and the registry's archive."""

    kafka: tuple[Artifact, ...]
    registry: Artifact

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """All files, the largest first: it decides how long a first start takes."""
        return tuple(sorted((*self.kafka, self.registry), key=lambda item: -item.size))


def read_lock(path: Path = LOCK) -> Lock:
    """Read the committed lock."""
    content = json.loads(path.read_text())
    return Lock(
        kafka=tuple(Artifact(**item) for item in content["kafka"]), registry=Artifact(**content["registry"])
    )


def write_lock(lock: Lock, path: Path = LOCK) -> None:
    """Write the lock; one file per line in a diff."""
    content = {"kafka": [asdict(item) for item in lock.kafka], "registry": asdict(lock.registry)}
    path.write_text(json.dumps(content, indent=2) + "\n")
