"""What several commands share: options, the settings that they make, and how answers are printed as JSON."""

import os
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from driftline.embedded import running_environment
from driftline.project import Project, load_project
from driftline.runtime.settings import PlatformSettings

ProjectOption = Annotated[
    Path,
    typer.Option("--project", envvar="DRIFTLINE_PROJECT", help="Folder with the project's driftline.yaml."),
]
AgainstOption = Annotated[
    str, typer.Option(help="Another state of the project: its folder, or a git revision of this one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs to read.")]


def echo_json(value: Any) -> None:
    """Print plain values as JSON, for programs to read and for people to look at."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def settings_for(folder: Path, state: Path | None = None) -> tuple[PlatformSettings, Project]:
    """Return the platform's settings and the project of a folder.

    Servers that the environment does not name are the embedded ones that run in the state folder.
    """
    state = state or Path(os.environ.get("DRIFTLINE_STATE") or ".driftline")
    running = {name: value for name, value in running_environment(state).items() if not os.environ.get(name)}
    return PlatformSettings.from_environment(project=folder, **running), load_project(folder)
