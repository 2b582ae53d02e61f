"""Start the predictor: ``python -P -m services.predictor``."""

import gc
import sys

from driftline.project import load_project
from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError
from driftline.runtime.health import Health
from driftline.streaming.service import run_service
from services.predictor.assembly import Predictor
from services.predictor.pipeline import SERVICE
from services.predictor.settings import PredictorSettings

#: A thread that computes lets another one in sooner than Python's 5 ms: HTTP waits for the batches, and they for it.
_SWITCH_SECONDS = 0.0005


def main() -> int:
    """Read the settings, load the project, run until told to stop."""
    try:
        settings = PredictorSettings.from_environment()
        health = Health(SERVICE, settings.instance)
        predictor = Predictor(settings, load_project(settings.project), health)
    except ConfigurationError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return EXIT_CONFIGURATION
    # What start-up made stays: full collections over it would stop every answer for tens of milliseconds.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        code = run_service(SERVICE, settings, health=health, app=predictor.app, loop=predictor.run)
    finally:
        predictor.close()
    return code if health.alive else code or 1


if __name__ == "__main__":
    sys.exit(main())
