"""The options that several commands share, declared once, and the settings that they make."""

from pathlib import Path
from typing import Annotated, Any

import typer

from driftline.project import Project, load_project
from driftline.runtime.settings import PlatformSettings

ProjectOption = Annotated[
    Path,
    typer.Option("--project", envvar="DRIFTLINE_PROJECT", help="Folder with the project's driftline.yaml."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs to read.")]


def settings_for(folder: Path, **given: Any) -> tuple[PlatformSettings, Project]:
    """Return the platform's settings, from the environment, and the project of a folder."""
    return PlatformSettings.from_environment(project=folder, **given), load_project(folder)
