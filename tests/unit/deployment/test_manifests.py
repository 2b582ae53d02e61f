"""The deployment files hold to their schemas, and to what the services promise each other."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from driftline.project.services import SERVICES

ROOT = Path(__file__).parents[3]
BASE = ROOT / "k8s" / "base"


def documents() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path in sorted(BASE.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            found += [(path.name, document) for document in yaml.safe_load_all(path.read_text())]
    return found


@pytest.mark.parametrize(
    ("name", "document"), documents(), ids=lambda value: value if isinstance(value, str) else value["kind"]
)
def test_kubernetes_accepts_it(name: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.34", strict=True)


def test_kustomization_lists_every_file_of_the_base() -> None:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(
        path.name for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml"
    )


@pytest.mark.parametrize("service", SERVICES)
def test_workload_has_probes_limits_and_a_stable_instance_name(service: str) -> None:
    workloads = [
        document
        for _, document in documents()
        if document["kind"] in {"Deployment", "StatefulSet"}
        and document["metadata"]["name"] == service.replace("_", "-")
    ]
    assert len(workloads) == 1
    (container,) = workloads[0]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == [f"services.{service}"]
    assert {"startupProbe", "readinessProbe", "livenessProbe", "resources"} <= set(container)
    assert "DRIFTLINE_INSTANCE" in {variable["name"] for variable in container["env"]}


@pytest.mark.parametrize("environment", ["dev", "staging", "production"])
def test_overlay_isolates_its_environment(environment: str) -> None:
    overlay = yaml.safe_load((ROOT / "k8s" / "overlays" / environment / "kustomization.yaml").read_text())
    assert overlay["namespace"] == f"driftline-{environment}"
    assert any(f"value: {environment}" in patch["patch"] for patch in overlay["patches"])


def test_compose_holds_to_the_compose_specification() -> None:
    package = importlib.util.find_spec("check_jsonschema")  # carries the schema; only read, not imported
    assert package is not None
    assert package.origin is not None
    schema = json.loads(
        (Path(package.origin).parent / "builtin_schemas/vendor/compose-spec.json").read_text()
    )
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    jsonschema.validate(compose, schema)


def test_compose_runs_every_service_and_publishes_on_loopback_only() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    commands = {" ".join(service.get("command", [])) for service in compose["services"].values()}
    assert {f"services.{service}" for service in SERVICES} <= commands
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_folder_is_deployed() -> None:
    folders = {path.parent.name for path in (ROOT / "services").glob("*/__main__.py")}
    assert folders == set(SERVICES)
