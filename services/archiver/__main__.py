"""Start the archiver: ``python -P -m services.archiver``."""

import sys

from driftline.streaming.service import main_of
from services.archiver.assembly import run_archiver
from services.archiver.pipeline import SERVICE
from services.archiver.settings import ArchiverSettings

if __name__ == "__main__":
    sys.exit(main_of(SERVICE, ArchiverSettings, run_archiver))
