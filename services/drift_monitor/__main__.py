"""Start the drift monitor: ``python -P -m services.drift_monitor``."""

import sys

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.topics import DRIFT_SIGNALS, PROFILES, WINDOW_REPORTS
from driftline.control import ControlApp, run_control_service
from driftline.models.model_reference import ModelReferences
from driftline.project import load_project
from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError
from driftline.runtime.health import Health
from services.drift_monitor.agents import DriftAgents
from services.drift_monitor.settings import DriftMonitorSettings

SERVICE = "drift_monitor"


def main() -> int:
    """Read the settings, load the project, run until told to stop."""
    try:
        settings = DriftMonitorSettings.from_environment()
        project = load_project(settings.project)
    except ConfigurationError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return EXIT_CONFIGURATION
    topics = settings.topics(project)
    signals, reports = topics.stream(DRIFT_SIGNALS), topics.stream(WINDOW_REPORTS)
    agents = DriftAgents(project, ModelReferences(settings.models), signals=signals, reports=reports)

    def build(health: Health) -> ControlApp:
        app = ControlApp(settings, service=SERVICE, prefix=topics.prefix, health=health)
        app.on(topics.stream(PROFILES), platform_schema("profile"), agents.on_profile, table="windows")
        app.sends(signals, platform_schema("drift_signal"))
        app.sends(reports, platform_schema("window_report"))
        return app

    return run_control_service(SERVICE, settings, build)


if __name__ == "__main__":
    sys.exit(main())
