"""Start the trainer: ``python -P -m services.trainer``."""

import sys

from driftline.streaming.service import main_of
from services.trainer.assembly import run_trainer
from services.trainer.pipeline import SERVICE
from services.trainer.settings import TrainerSettings

if __name__ == "__main__":
    sys.exit(main_of(SERVICE, TrainerSettings, run_trainer))
