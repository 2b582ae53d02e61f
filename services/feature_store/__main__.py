"""Start the feature store: ``python -P -m services.feature_store``."""

import sys

from driftline.streaming.service import main_of
from services.feature_store.assembly import run_feature_store
from services.feature_store.pipeline import SERVICE
from services.feature_store.settings import FeatureStoreSettings

if __name__ == "__main__":
    sys.exit(main_of(SERVICE, FeatureStoreSettings, run_feature_store))
