"""``python -P -m services.ingest``: settings, application, serve."""

import sys

from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError
from driftline.runtime.health import Health
from driftline.runtime.http import serve
from driftline.runtime.instance_file import remove_instance_file, write_instance_file
from driftline.runtime.logging import configure_logging, get_logger
from services.ingest.assembly import build_app
from services.ingest.settings import IngestSettings


def main() -> int:
    """Serve until SIGTERM; return the exit code."""
    log = get_logger(__name__)
    try:
        settings = IngestSettings.from_environment()
    except ConfigurationError as error:
        print(f"ingest: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    configure_logging("ingest", settings.instance, settings.log_format, settings.log_level)
    health = Health("ingest", settings.instance)

    def on_bound(port: int) -> None:
        write_instance_file(settings.state, settings.instance, service="ingest", port=port)
        log.info("listening", host=settings.host, port=port)

    try:
        serve(build_app(settings, health), settings.host, settings.port, on_bound=on_bound)
    except ConfigurationError as error:
        log.error("configuration", detail=str(error))  # noqa: TRY400  (the message says it all)
        return EXIT_CONFIGURATION
    finally:
        remove_instance_file(settings.state, settings.instance)
    log.info("stopped")
    return 0 if health.alive else 1


if __name__ == "__main__":
    sys.exit(main())
