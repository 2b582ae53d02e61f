"""The cache is filled once; after that it needs no network."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from driftline.embedded.artifacts import Artifact, Lock, read_lock
from driftline.embedded.cache import ArtifactCache, cache_folder, repository_url
from driftline.runtime.errors import UnavailableError

NOWHERE = "http://127.0.0.1:1"


def artifact(name: str, content: bytes, **more: str) -> Artifact:
    digest = hashlib.sha256(content).hexdigest()
    return Artifact(group="org.example", name=name, version="1", sha256=digest, size=len(content), **more)


def archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in ("quarkus-run.jar", "lib/main.jar"):
            entry = tarfile.TarInfo(name)
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"jar"))
    return content.getvalue()


@pytest.fixture
def lock(repository: Any) -> Lock:
    registry = artifact("registry", archive(), classifier="all", packaging="tar.gz")
    jars = {artifact("broker", b"broker" * 100): b"broker" * 100, artifact("log", b"log"): b"log"}
    for item, content in {**jars, registry: archive()}.items():
        repository.files[f"/{item.path}"] = content
    return Lock(kafka=tuple(jars), registry=registry)


def test_first_use_fetches_and_unpacks_and_the_second_needs_no_network(
    lock: Lock, repository: Any, tmp_path: Path
) -> None:
    cache = ArtifactCache(tmp_path, lock=lock, repository=repository.url)
    assert len(cache.missing()) == 3
    cache.ensure(quiet=True)
    assert (cache.registry_folder / "lib" / "main.jar").read_bytes() == b"jar"
    assert [Path(path).read_bytes()[:3] for path in cache.kafka_class_path.split(":")] == [b"bro", b"log"]

    offline = ArtifactCache(tmp_path, lock=lock, repository=NOWHERE)
    offline.ensure(quiet=True)
    assert offline.missing() == []
    assert offline.damaged() == []


def test_file_that_was_cut_is_fetched_again(lock: Lock, repository: Any, tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, lock=lock, repository=repository.url)
    cache.ensure(quiet=True)
    jar = Path(cache.kafka_class_path.split(":")[0])
    jar.write_bytes(b"short")
    assert [item.name for item in cache.missing()] == ["broker"]
    cache.ensure(quiet=True)
    assert jar.read_bytes() == b"broker" * 100


def test_file_that_was_changed_is_found(lock: Lock, repository: Any, tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, lock=lock, repository=repository.url)
    cache.ensure(quiet=True)
    Path(cache.kafka_class_path.split(":")[1]).write_bytes(b"gol")
    assert [item.name for item in cache.damaged()] == ["log"]


def test_no_network_says_what_to_do(lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with pytest.raises(UnavailableError, match="Check the network"):
        ArtifactCache(tmp_path, lock=lock, repository=NOWHERE).ensure(quiet=True)


def test_folder_and_repository_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path))
    monkeypatch.setenv("DRIFTLINE_MAVEN_REPOSITORY", "http://mirror/maven/")
    assert cache_folder() == tmp_path
    assert repository_url() == "http://mirror/maven"


def test_committed_lock_pins_every_file() -> None:
    lock = read_lock()
    assert lock.registry.packaging == "tar.gz"
    assert {"kafka_2.13", "kafka-clients", "slf4j-simple"} <= {item.name for item in lock.kafka}
    assert "log4j-core" not in {item.name for item in lock.kafka}
    assert all(len(item.sha256) == 64 and item.size > 0 for item in lock.artifacts)


def test_an_archive_is_of_one_server_and_one_lock(tmp_path: Path, lock: Lock) -> None:
    cache = ArtifactCache(tmp_path, lock=lock)
    other = ArtifactCache(tmp_path, lock=Lock(kafka=lock.kafka[:1], registry=lock.registry))
    assert len({cache.archive("kafka"), cache.archive("registry"), other.archive("kafka")}) == 3
