"""Settings of the retrain trigger; what asks for a retrain is declared per model in the project."""

from driftline.control import ControlSettings


class RetrainTriggerSettings(ControlSettings):
    """The settings of every service of the control plane."""
