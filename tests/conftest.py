"""Every test starts without the settings of the shell that runs it."""

import os

import pytest

# Before scikit-learn is loaded: threads that wait by spinning make small fits slower on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_OURS = ("DRIFTLINE_", "KAFKA_", "SCHEMA_REGISTRY_", "REDIS_")
_KEPT = {"DRIFTLINE_CACHE", "DRIFTLINE_MAVEN_REPOSITORY"}


def pytest_configure(config: pytest.Config) -> None:
    """A test must not find anyone's real servers."""
    for name in [name for name in os.environ if name.startswith(_OURS) and name not in _KEPT]:
        del os.environ[name]
