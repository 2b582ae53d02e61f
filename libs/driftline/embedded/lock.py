"""Make ``artifacts.lock.json``: resolve the coordinates below with jgo and note every file's SHA-256.

Run ``python -m driftline.embedded.lock`` after a change of a version here, and commit the result.
"""

import hashlib
from pathlib import Path
from typing import Any

from driftline.embedded.artifacts import Artifact, Lock, write_lock

KAFKA = ("org.apache.kafka", "kafka_2.13", "4.1.2")
#: Kafka logs through slf4j; this binding writes plain lines and is set by system properties alone.
LOGGING = ("org.slf4j", "slf4j-simple", "1.7.36")
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.3.3")
#: Logging back ends that Kafka's POM brings and slf4j-simple replaces.
_REPLACED = {"log4j-core", "log4j-slf4j-impl", "log4j-1.2-api"}


def resolve() -> Lock:
    """Resolve all files, download them to Maven's own cache, and describe them."""
    import jgo
    from jgo.maven import MavenContext

    found: dict[tuple[str, str], Artifact] = {}
    for coordinates in (KAFKA, LOGGING):
        for artifact in jgo.resolve(":".join(coordinates)):
            if artifact.artifactId not in _REPLACED:
                found.setdefault((artifact.groupId, artifact.artifactId), _describe(artifact))
    group, name, version = REGISTRY
    registry = MavenContext().project(group, name).at_version(version).artifact("all", "tar.gz")
    return Lock(kafka=tuple(found.values()), registry=_describe(registry))


def _describe(artifact: Any) -> Artifact:
    path = Path(artifact.resolve())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(
        group=artifact.groupId,
        name=artifact.artifactId,
        version=artifact.version,
        classifier=artifact.classifier or "",
        packaging=artifact.packaging or "jar",
        sha256=digest,
        size=path.stat().st_size,
    )


if __name__ == "__main__":
    lock = resolve()
    write_lock(lock)
    total = sum(item.size for item in lock.artifacts) / 1e6
    print(f"locked {len(lock.artifacts)} files, {total:.0f} MB")
