"""Which services a project needs."""

from driftline.project.declaration import Project

#: All services, in the order in which they are shown.
SERVICES = (
    "ingest",
    "feature_store",
    "predictor",
    "outcome_joiner",
    "profiler",
    "drift_monitor",
    "archiver",
    "alerter",
    "retrain_trigger",
    "trainer",
    "model_registry",
)


def services_of(project: Project) -> tuple[str, ...]:
    """Return the services that have something to do in a project."""
    needless = set()
    if not project.models:
        needless |= {"predictor", "profiler", "drift_monitor", "alerter", "model_registry"}
    if not project.labelled_models:
        needless.add("outcome_joiner")
    if not project.models or project.history_module is None:
        needless |= {"retrain_trigger", "trainer"}  # there is no past to train on
    return tuple(name for name in SERVICES if name not in needless)
