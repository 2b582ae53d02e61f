"""Start the retrain trigger: ``python -P -m services.retrain_trigger``."""

import sys

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.topics import DRIFT_SIGNALS, RETRAIN_REQUESTS, WINDOW_REPORTS
from driftline.control import ControlApp, run_control_service
from driftline.project import load_project
from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError
from driftline.runtime.health import Health
from services.retrain_trigger.agents import TriggerAgents
from services.retrain_trigger.settings import RetrainTriggerSettings

SERVICE = "retrain_trigger"


def main() -> int:
    """Read the settings, load the project, run until told to stop."""
    try:
        settings = RetrainTriggerSettings.from_environment()
        project = load_project(settings.project)
    except ConfigurationError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return EXIT_CONFIGURATION
    topics = settings.topics(project)
    signals, reports, requests = (
        topics.stream(name) for name in (DRIFT_SIGNALS, WINDOW_REPORTS, RETRAIN_REQUESTS)
    )
    agents = TriggerAgents(project, requests=requests)

    def build(health: Health) -> ControlApp:
        app = ControlApp(settings, service=SERVICE, prefix=topics.prefix, health=health)
        app.on(signals, platform_schema("drift_signal"), agents.on_drift_signal, table="models")
        app.on(reports, platform_schema("window_report"), agents.on_window_report, table="models")
        app.on(requests, platform_schema("retrain_request"), agents.on_retrain_request, table="models")
        app.sends(requests, platform_schema("retrain_request"))
        return app

    return run_control_service(SERVICE, settings, build)


if __name__ == "__main__":
    sys.exit(main())
