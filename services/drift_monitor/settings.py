"""Settings of the drift monitor."""

from driftline.control import ControlSettings


class DriftMonitorSettings(ControlSettings):
    """The settings of every service of the control plane."""
