"""Start the alerter: ``python -P -m services.alerter``."""

import sys
from contextlib import ExitStack

from driftline.control import run_control_service
from driftline.project import load_project
from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError
from services.alerter.assembly import SERVICE, build_alerter, channels_of, rules_of
from services.alerter.settings import AlerterSettings


def main() -> int:
    """Read the settings, the project and the rules, run until told to stop."""
    try:
        settings = AlerterSettings.from_environment()
        project = load_project(settings.project)
        rules = rules_of(settings, project)
        channels = channels_of(rules, settings)
    except ConfigurationError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return EXIT_CONFIGURATION
    with ExitStack() as closing:
        return run_control_service(
            SERVICE,
            settings,
            lambda health: build_alerter(settings, project, rules, channels, health=health, closing=closing),
        )


if __name__ == "__main__":
    sys.exit(main())
