import json
import os
from pathlib import Path

from driftline.runtime.instance_file import (
    instance_file,
    instance_path,
    read_instance_file,
    read_instance_files,
    remove_instance_file,
    write_instance_file,
)


def test_written_while_running_and_removed_after(tmp_path: Path) -> None:
    with instance_file(tmp_path, "ingest-0", service="ingest", port=8080) as path:
        (found,) = read_instance_files(tmp_path)
        assert (found.pid, found.port, found.service) == (os.getpid(), 8080, "ingest")
        assert path == instance_path(tmp_path, "ingest-0")
    assert read_instance_files(tmp_path) == []


def test_a_successors_file_stays(tmp_path: Path) -> None:
    path = write_instance_file(tmp_path, "ingest-0", service="ingest", port=1)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "pid": content["pid"] + 1}))
    remove_instance_file(tmp_path, "ingest-0")
    assert path.exists()


def test_damaged_files_are_no_instances(tmp_path: Path) -> None:
    path = write_instance_file(tmp_path, "ingest-0", service="ingest", port=1)
    path.write_text("{")
    assert read_instance_file(tmp_path, "ingest-0") is None
    path.write_text('{"pid": 1}')
    assert read_instance_files(tmp_path) == []
