"""Start the trainer: ``python -P -m services.trainer``."""

import sys
import threading

from driftline.project import load_project
from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError
from driftline.runtime.health import Health
from driftline.runtime.http import create_app
from driftline.streaming.service import run_service
from services.trainer.assembly import run_trainer
from services.trainer.pipeline import SERVICE
from services.trainer.settings import TrainerSettings


def main() -> int:
    """Read the settings, load the project, run until told to stop."""
    try:
        settings = TrainerSettings.from_environment()
        project = load_project(settings.project)
    except ConfigurationError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return EXIT_CONFIGURATION
    health = Health(SERVICE, settings.instance)
    app = create_app(title="Trainer", service=SERVICE, health=health)

    def loop(stop: threading.Event) -> None:
        run_trainer(settings, project, health=health, stop=stop)

    return run_service(SERVICE, settings, health=health, app=app, loop=loop)


if __name__ == "__main__":
    sys.exit(main())
