"""Start the outcome joiner: ``python -P -m services.outcome_joiner``."""

import sys

from driftline.streaming.service import main_of
from services.outcome_joiner.assembly import run_outcome_joiner
from services.outcome_joiner.pipeline import SERVICE
from services.outcome_joiner.settings import OutcomeJoinerSettings

if __name__ == "__main__":
    sys.exit(main_of(SERVICE, OutcomeJoinerSettings, run_outcome_joiner))
