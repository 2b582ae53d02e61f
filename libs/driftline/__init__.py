"""driftline: an event-driven MLOps platform."""

__version__ = "0.1.0"
