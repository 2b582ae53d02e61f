"""Start the outcome joiner: ``python -P -m services.outcome_joiner``."""

import sys
import threading

from driftline.project import load_project
from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError
from driftline.runtime.health import Health
from driftline.runtime.http import create_app
from driftline.streaming.service import run_service
from services.outcome_joiner.assembly import run_outcome_joiner
from services.outcome_joiner.pipeline import SERVICE
from services.outcome_joiner.settings import OutcomeJoinerSettings


def main() -> int:
    """Read the settings, load the project, run until told to stop."""
    try:
        settings = OutcomeJoinerSettings.from_environment()
        project = load_project(settings.project)
    except ConfigurationError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return EXIT_CONFIGURATION
    health = Health(SERVICE, settings.instance)
    app = create_app(title="Outcome joiner", service=SERVICE, health=health)

    def loop(stop: threading.Event) -> None:
        run_outcome_joiner(settings, project, health=health, stop=stop)

    return run_service(SERVICE, settings, health=health, app=app, loop=loop)


if __name__ == "__main__":
    sys.exit(main())
