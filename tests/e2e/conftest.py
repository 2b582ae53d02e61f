"""One platform for all end-to-end tests: real broker, registry, store and service processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.contracts.admin import create_topics
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.embedded import EmbeddedStack
from driftline.project import load_project
from driftline.runtime.supervisor import Supervisor
from tests.e2e.platform import Platform
from tests.small_model import write_model

#: What the kill tests kill; the archive, alerts and models have kill tests with stacks of their own.
SERVICES = ("ingest", "feature_store", "predictor", "outcome_joiner", "profiler", "drift_monitor")
SHOP = Path(__file__).parent / "shop"


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    state = tmp_path_factory.mktemp("platform")
    project = load_project(SHOP)
    write_model(project, state / "models", reference=True)
    with EmbeddedStack(state) as stack:
        topics = Topics(project.name)
        create_topics({"bootstrap.servers": stack.environment["KAFKA_BOOTSTRAP_SERVERS"]}, project, topics)
        with SchemaRegistry(stack.environment["SCHEMA_REGISTRY_URL"]) as registry:
            ids = registry.register_project(project, topics)
        environment = {
            **stack.environment,
            "DRIFTLINE_PROJECT": str(SHOP),
            "DRIFTLINE_STATE": str(state),
            "DRIFTLINE_MODELS": str(state / "models"),
            "DRIFTLINE_LOG_FORMAT": "json",
            "DRIFTLINE_MAX_POLL_INTERVAL_MS": "60000",  # a loop that hangs is noticed while the tests wait
            "DRIFTLINE_PROFILER_QUIET_SECONDS": "3",
        }
        supervisor = Supervisor(state, SERVICES, environment)
        supervisor.start()
        try:
            supervisor.wait_ready(120)
            yield Platform(
                project=project,
                stack=stack,
                supervisor=supervisor,
                state=state,
                environment=environment,
                schema_ids=ids,
            )
        finally:
            supervisor.stop()
