"""Start the profiler: ``python -P -m services.profiler``."""

import sys

from driftline.streaming.service import main_of
from services.profiler.assembly import run_profiler
from services.profiler.pipeline import SERVICE
from services.profiler.settings import ProfilerSettings

if __name__ == "__main__":
    sys.exit(main_of(SERVICE, ProfilerSettings, run_profiler))
