"""A download resumes, is verified, and leaves nothing that is wrong."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftline.embedded.download import ChecksumError, fetch
from driftline.runtime.errors import UnavailableError

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "kafka.jar"


@pytest.fixture
def what(repository: Any) -> dict[str, Any]:
    repository.files["/kafka.jar"] = CONTENT
    digest = hashlib.sha256(CONTENT).hexdigest()
    return {"url": f"{repository.url}/kafka.jar", "sha256": digest, "size": len(CONTENT), "pause": 0.0}


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def test_file_is_fetched_and_progress_told(client: httpx.Client, target: Path, what: dict[str, Any]) -> None:
    told: list[int] = []
    fetch(client, target=target, progress=told.append, **what)
    assert target.read_bytes() == CONTENT
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)
    assert not part_of(target).exists()


def test_partial_download_goes_on_where_it_stopped(
    client: httpx.Client, target: Path, what: dict[str, Any], repository: Any
) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    fetch(client, target=target, **what)
    assert target.read_bytes() == CONTENT
    assert repository.requests == [("/kafka.jar", "bytes=1000-")]


def test_server_without_ranges_starts_anew(
    client: httpx.Client, target: Path, what: dict[str, Any], repository: Any
) -> None:
    repository.ranges = False
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    fetch(client, target=target, **what)
    assert target.read_bytes() == CONTENT


def test_connection_that_breaks_off_is_resumed(
    client: httpx.Client, target: Path, what: dict[str, Any], repository: Any
) -> None:
    repository.cut = len(CONTENT) // 3
    fetch(client, target=target, **what)
    assert target.read_bytes() == CONTENT
    assert len(repository.requests) > 2


def test_connection_that_keeps_breaking_leaves_its_part_for_the_next_try(
    client: httpx.Client, target: Path, what: dict[str, Any], repository: Any
) -> None:
    repository.cut = 10
    with pytest.raises(UnavailableError, match="goes on where it stopped"):
        fetch(client, target=target, **what)
    assert part_of(target).read_bytes() == CONTENT[: part_of(target).stat().st_size] != b""
    repository.cut = None
    fetch(client, target=target, **what)
    assert target.read_bytes() == CONTENT


def test_corrupt_download_is_detected_and_fetched_again(
    client: httpx.Client, target: Path, what: dict[str, Any], repository: Any
) -> None:
    repository.spoil = 1
    fetch(client, target=target, **what)
    assert target.read_bytes() == CONTENT
    assert len(repository.requests) == 2


def test_part_of_another_file_is_given_up(client: httpx.Client, target: Path, what: dict[str, Any]) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(b"x" * 5000)
    fetch(client, target=target, **what)
    assert target.read_bytes() == CONTENT


def test_wrong_file_is_refused_and_not_kept(
    client: httpx.Client, target: Path, what: dict[str, Any], repository: Any
) -> None:
    repository.files["/kafka.jar"] = CONTENT[::-1]
    with pytest.raises(ChecksumError, match="checksum"):
        fetch(client, target=target, **what)
    assert list(target.parent.iterdir()) == []


def test_missing_file_is_not_asked_for_again(
    client: httpx.Client, target: Path, what: dict[str, Any], repository: Any
) -> None:
    repository.files.clear()
    with pytest.raises(UnavailableError, match="404"):
        fetch(client, target=target, **what)
    assert len(repository.requests) == 1
