"""The embedded stack is real servers that come, stay reachable, keep what they are told, and go."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.embedded import PARTS, EmbeddedStack, running_environment
from driftline.embedded.cache import ArtifactCache
from driftline.embedded.java import java, jvm_flags
from driftline.embedded.ports import answers
from driftline.embedded.warm import warm
from driftline.runtime.errors import ConfigurationError
from driftline.runtime.processes import is_alive

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """A stack of this module's own, to be killed."""
    with EmbeddedStack(tmp_path_factory.mktemp("own")) as running:
        yield running


def test_servers_take_the_archives_that_were_made(own: EmbeddedStack) -> None:
    cache = ArtifactCache()
    warm(cache)
    assert warm(cache) == []  # nothing is made twice
    for part in ("kafka", "registry"):
        own.restart(part)
        assert str(cache.archive(part)) in Path(f"/proc/{own.pid(part)}/maps").read_text()


def test_an_archive_that_does_not_fit_is_passed_over(tmp_path: Path) -> None:
    archive = tmp_path / "other.aot"
    archive.write_bytes(bytes(10_000))
    flags = jvm_flags(heap="64m", scratch=tmp_path, archive=archive)
    assert any(str(archive) in flag for flag in flags)
    assert subprocess.run([java(), *flags, "-version"], timeout=60, check=False).returncode == 0


def topics(stack: EmbeddedStack) -> set[str]:
    admin = AdminClient({"bootstrap.servers": stack.environment["KAFKA_BOOTSTRAP_SERVERS"]})
    return set(admin.list_topics(timeout=10).topics)


def create_topic(stack: EmbeddedStack, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": stack.environment["KAFKA_BOOTSTRAP_SERVERS"]})
    for future in admin.create_topics([NewTopic(name, 1, 1)]).values():
        future.result(20)


def subjects(stack: EmbeddedStack) -> list[str]:
    url = stack.environment["SCHEMA_REGISTRY_URL"]
    found: list[str] = httpx.get(f"{url}/subjects", trust_env=False).json()
    return found


def register(stack: EmbeddedStack, subject: str) -> None:
    url = stack.environment["SCHEMA_REGISTRY_URL"]
    answer = httpx.post(
        f"{url}/subjects/{subject}/versions", json={"schema": '{"type": "string"}'}, trust_env=False
    )
    answer.raise_for_status()


def store(stack: EmbeddedStack) -> "redis.Redis":
    return redis.Redis.from_url(stack.environment["REDIS_URL"])


def remember(stack: EmbeddedStack, name: str) -> None:
    create_topic(stack, name)
    register(stack, name)
    with store(stack) as client:
        client.set(name, name)


def remembers(stack: EmbeddedStack, name: str) -> bool:
    with store(stack) as client:
        return name in topics(stack) and name in subjects(stack) and client.get(name) == name.encode()


def test_every_server_listens_on_loopback_only(own: EmbeddedStack) -> None:
    for part in PARTS:
        listening = [
            connection.laddr.ip
            for connection in psutil.Process(own.pid(part)).net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}, part


def test_mistyped_topic_is_not_created(own: EmbeddedStack) -> None:
    admin = AdminClient({"bootstrap.servers": own.environment["KAFKA_BOOTSTRAP_SERVERS"]})
    admin.list_topics("mistyped", timeout=10)
    assert "mistyped" not in topics(own)


@pytest.mark.parametrize("part", PARTS)
def test_killed_part_comes_back_with_what_it_kept(own: EmbeddedStack, unique: str, part: str) -> None:
    remember(own, unique)
    if part == "valkey":
        time.sleep(1.5)  # its file is synced once a second; the process's own buffer is flushed sooner
    addresses, pid = own.environment, own.pid(part)
    own.kill(part)
    assert own.ended() == {part: -signal.SIGKILL}
    own.restart(part)
    assert own.pid(part) != pid
    assert own.environment == addresses
    assert remembers(own, unique)


def test_wiped_part_comes_back_empty(own: EmbeddedStack, unique: str) -> None:
    with store(own) as client:
        client.set(unique, "1")
    own.kill("valkey")
    own.restart("valkey", wipe=True)
    with store(own) as client:
        assert client.get(unique) is None
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_stop_leaves_nothing_and_the_next_start_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unique: str
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "DRIFTLINE_MAVEN_REPOSITORY"):
        monkeypatch.setenv(name, NOWHERE)
    stack = EmbeddedStack(tmp_path)
    with stack:
        remember(stack, unique)
        addresses = stack.environment
        pids = [stack.pid(part) for part in PARTS]
        assert running_environment(tmp_path) == addresses
    assert not any(is_alive(pid) for pid in pids)
    ports = [int(address.split(":")[-1].split("/")[0]) for address in addresses.values()]
    assert not any(answers(port) for port in ports)
    assert running_environment(tmp_path) == {}
    with EmbeddedStack(tmp_path) as again:
        assert again.environment == addresses
        assert remembers(again, unique)


def test_second_stack_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path).start(["valkey"])
    try:
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()} already runs"):
            EmbeddedStack(tmp_path).start(["valkey"])
        with store(stack) as client:
            assert client.ping()
    finally:
        stack.stop()


def test_parts_can_be_started_alone(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path).start(["valkey"])
    try:
        assert set(stack.environment) == {"REDIS_URL"}
        with pytest.raises(ConfigurationError, match="does not run 'kafka'"):
            stack.pid("kafka")
    finally:
        stack.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_servers_end_when_their_process_is_killed(tmp_path: Path) -> None:
    text = (
        "import sys, time; from pathlib import Path; from driftline.embedded import EmbeddedStack\n"
        "stack = EmbeddedStack(Path(sys.argv[1])).start(['valkey']); print(stack.pid('valkey'), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", text, tmp_path], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_alive(pid)
        owner.kill()
    until = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < until
        time.sleep(0.05)
