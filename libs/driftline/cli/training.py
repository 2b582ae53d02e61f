"""`driftline train`: train a model on a project's history and make it the active version."""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from driftline.cli.options import echo_json
from driftline.models.training import Trained
from driftline.models.training import train as train_model
from driftline.project import Project, load_project
from driftline.runtime.errors import ConfigurationError

_DAY = ["%Y-%m-%d"]


def train(
    *,
    start: Annotated[datetime, typer.Option("--from", formats=_DAY, help="First day, UTC.")],
    end: Annotated[datetime, typer.Option("--to", formats=_DAY, help="Day after the last one, UTC.")],
    project: Annotated[
        Path, typer.Option(envvar="DRIFTLINE_PROJECT", help="Folder with the project's driftline.yaml.")
    ] = Path(),
    model: Annotated[
        str, typer.Option(help="The model to train; may be left out where the project has one.")
    ] = "",
    models: Annotated[Path, typer.Option(envvar="DRIFTLINE_MODELS", help="Folder of the bundles.")] = Path(
        ".driftline/models"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model on its project's history; the result is a new, active version.

    Features are computed point-in-time, the last fifth of the span validates, the model becomes ONNX.

    Example: driftline train --project examples/flights --from 2013-01-01 --to 2013-04-01
    """
    trained = train_span(
        load_project(project), model, models, start=start.date(), end=end.date(), quiet=as_json
    )
    if as_json:
        echo_json(summary(trained))
    else:
        _print(trained)


def train_span(
    project: Project, model: str, models: Path, *, start: date, end: date, quiet: bool = False
) -> Trained:
    """Train with a line of progress on the error stream (the demo calls this too)."""
    name = model or _only_model(project)
    console = Console(stderr=True, quiet=quiet)
    with console.status(f"Training {name}") as status:
        return train_model(
            project,
            name,
            models,
            start=start,
            end=end,
            progress=lambda step: status.update(f"Training {name}: {step}"),
        )


def summary(trained: Trained) -> dict[str, object]:
    """Return what `--json` prints."""
    manifest = trained.bundle.manifest
    return {
        "model": manifest.model,
        "version": manifest.version,
        "path": str(trained.bundle.path),
        "sha256": trained.bundle.sha256,
        "candidate": manifest.candidate,
        "deprecated": manifest.deprecated,
        "training": manifest.training.model_dump(mode="json"),
        "metrics": {name: found.model_dump(mode="json") for name, found in manifest.metrics.items()},
        "candidates": {name: found.model_dump(mode="json") for name, found in trained.candidates.items()},
        "conversion": manifest.conversion.model_dump(mode="json"),
        "seconds": round(trained.seconds, 3),
    }


def _print(trained: Trained) -> None:
    manifest = trained.bundle.manifest
    console = Console()
    table = Table(title=f"{manifest.ref}, validated from {manifest.training.validation_start} on")
    table.add_column("")
    for heading in ("area under the curve", "log loss", "Brier"):
        table.add_column(heading, justify="right")
    for name, found in manifest.metrics.items():
        label = f"model ({manifest.candidate})" if name == "model" else name.replace("_", " ")
        table.add_row(label, f"{found.auc:.3f}", f"{found.log_loss:.4f}", f"{found.brier:.4f}")
    console.print(table)
    for told in manifest.deprecated:
        console.print(f"[yellow]warning:[/yellow] {told}", highlight=False)
    console.print(
        f"{manifest.training.rows:,} rows, {len(manifest.numeric)} numbers and {len(manifest.categorical)} "
        f"categories, {trained.seconds:.1f} s. Active now: {trained.bundle.path}",
        highlight=False,
    )


def _only_model(project: Project) -> str:
    if len(project.models) != 1:
        names = ", ".join(sorted(project.models)) or "none"
        raise ConfigurationError(f"project {project.name!r} has these models: {names}; name one with --model")
    return next(iter(project.models))
