"""A boosting model for the bench project, trained on made-up rows and written as any other."""

from pathlib import Path

from driftline.project import Project
from tests.small_model import write_model as write


def write_model(project: Project, models: Path) -> None:
    """Write and activate the project's only model."""
    write(project, models)
