"""Start the model registry: ``python -P -m services.model_registry``."""

import sys

from driftline.streaming.service import main_of
from services.model_registry.assembly import run_model_registry
from services.model_registry.pipeline import SERVICE
from services.model_registry.settings import ModelRegistrySettings

if __name__ == "__main__":
    sys.exit(main_of(SERVICE, ModelRegistrySettings, run_model_registry))
