"""The control plane: small stateful handlers of a few events a second, on Faust with rails against losing events."""

from driftline.control.app import ControlApp
from driftline.control.context import Context, deterministic_id
from driftline.control.routes import Handler
from driftline.control.service import run_control_service
from driftline.control.settings import ControlSettings
from driftline.control.tables import TableView

__all__ = [
    "Context",
    "ControlApp",
    "ControlSettings",
    "Handler",
    "TableView",
    "deterministic_id",
    "run_control_service",
]
