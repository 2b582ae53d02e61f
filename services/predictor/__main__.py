"""Start the predictor: ``python -P -m services.predictor``."""

import sys
import threading

from driftline.project import load_project
from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.http import create_app
from driftline.streaming.service import run_service
from services.predictor.assembly import build, run_stream
from services.predictor.pipeline import SERVICE
from services.predictor.settings import PredictorSettings

_EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL: the supervisor starts it again


def main() -> int:
    """Read the settings, load the project, run until told to stop."""
    health = Health(SERVICE)
    app = create_app(
        title="Predictor",
        service=SERVICE,
        health=health,
        description="Asks models for predictions; every request is in the log under its UUID before it is answered.",
    )
    try:
        settings = PredictorSettings.from_environment()
        project = load_project(settings.project)
        predictor, close = build(settings, project, app, health)
    except ConfigurationError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return EXIT_CONFIGURATION
    except UnavailableError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return _EXIT_TRY_AGAIN

    def loop(stop: threading.Event) -> None:
        run_stream(settings, project, predictor, health=health, stop=stop)

    try:
        return run_service(SERVICE, settings, health=health, app=app, loop=loop)
    finally:
        close()


if __name__ == "__main__":
    sys.exit(main())
