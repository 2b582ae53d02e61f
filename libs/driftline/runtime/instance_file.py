"""``<state>/run/<instance>.json``: how the supervisor and the CLI find a running process and its port."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFile:
    """What a running process says about itself."""

    instance: str
    service: str
    pid: int
    port: int
    started_at: str


def instance_path(state: Path, instance: str) -> Path:
    """Return where an instance's file is."""
    return state / "run" / f"{instance}.json"


def write_instance_file(state: Path, instance: str, *, service: str, port: int) -> Path:
    """Write this process's file, atomically: a reader sees all of it or none."""
    path = instance_path(state, instance)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = InstanceFile(
        instance=instance,
        service=service,
        pid=os.getpid(),
        port=port,
        started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(asdict(content)) + "\n")
    draft.replace(path)
    return path


def remove_instance_file(state: Path, instance: str) -> None:
    """Remove this process's file; one that a successor wrote stays."""
    current = read_instance_file(state, instance)
    if current is not None and current.pid == os.getpid():
        instance_path(state, instance).unlink(missing_ok=True)


def read_instance_file(state: Path, instance: str) -> InstanceFile | None:
    """Return an instance's file; None where there is none (or none that can be read)."""
    try:
        return InstanceFile(**json.loads(instance_path(state, instance).read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def read_instance_files(state: Path) -> list[InstanceFile]:
    """Return the files of all instances, by name. A crashed process leaves its file: check the pid."""
    found = (read_instance_file(state, path.stem) for path in sorted((state / "run").glob("*.json")))
    return [item for item in found if item is not None]


@contextmanager
def instance_file(state: Path, instance: str, *, service: str, port: int) -> Iterator[Path]:
    """Write the file, remove it on a clean exit."""
    path = write_instance_file(state, instance, service=service, port=port)
    try:
        yield path
    finally:
        remove_instance_file(state, instance)
