"""Start the model registry: ``python -P -m services.model_registry``."""

import sys
import threading

from driftline.project import load_project
from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError
from driftline.runtime.health import Health
from driftline.runtime.http import create_app
from driftline.streaming.service import run_service
from services.model_registry.assembly import run_model_registry
from services.model_registry.pipeline import SERVICE
from services.model_registry.settings import ModelRegistrySettings


def main() -> int:
    """Read the settings, load the project, run until told to stop."""
    try:
        settings = ModelRegistrySettings.from_environment()
        project = load_project(settings.project)
    except ConfigurationError as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        return EXIT_CONFIGURATION
    health = Health(SERVICE, settings.instance)
    app = create_app(title="Model registry", service=SERVICE, health=health)

    def loop(stop: threading.Event) -> None:
        run_model_registry(settings, project, health=health, stop=stop)

    return run_service(SERVICE, settings, health=health, app=app, loop=loop)


if __name__ == "__main__":
    sys.exit(main())
