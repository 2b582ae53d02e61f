"""`topics` and `schemas` against a real broker and registry."""

import json
import shutil
from pathlib import Path

from driftline.contracts.topics import Topics
from driftline.project import Project
from tests.integration.cli.conftest import FLIGHTS, Driftline


def test_topics_are_created_once_and_listed(driftline: Driftline, topics: Topics, flights: Project) -> None:
    created = json.loads(driftline("topics", "create", "--json").stdout)["created"]
    assert sorted(created) == sorted(topics.all_of(flights))
    assert json.loads(driftline("topics", "create", "--json").stdout) == {"created": []}
    listed = json.loads(driftline("topics", "list", "--json").stdout)
    assert {row["topic"]: row["exists"] for row in listed} == dict.fromkeys(topics.all_of(flights), True)
    assert "events" in driftline("topics", "diagram").stdout


def test_an_incompatible_schema_stops_and_names_its_field(
    driftline: Driftline, prepared: None, tmp_path: Path
) -> None:
    assert json.loads(driftline("schemas", "check", "--json").stdout) == {"compatible": True, "problems": {}}
    changed = tmp_path / "flights"
    shutil.copytree(FLIGHTS, changed)
    path = changed / "schemas" / "departures.avsc"
    schema = json.loads(path.read_text())
    schema["fields"].append({"name": "gate", "type": "string"})
    path.write_text(json.dumps(schema))
    for command in ("check", "register"):
        result = driftline("schemas", command, "--project", str(changed))
        assert result.exit_code == 1
        assert "gate" in result.output + str(result.exception)
