"""Settings of the model registry; what makes a version champion is declared per model in the project."""

from driftline.streaming.settings import StreamSettings


class ModelRegistrySettings(StreamSettings):
    """The settings of every stream service."""
