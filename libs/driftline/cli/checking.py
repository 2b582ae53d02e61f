"""`driftline check`, `driftline features diff`: look at a project before it is deployed, without servers."""

import sys
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from driftline.checking.changes import Change, project_changes
from driftline.checking.project_check import check_project
from driftline.checking.revisions import other_state
from driftline.checking.view_versions import ViewComparison, compare_views
from driftline.cli.options import JsonOption, ProjectOption
from driftline.project.loading import Examination
from driftline.project.mistakes import Mistake
from driftline.runtime.errors import EXIT_CONFIGURATION

AgainstOption = Annotated[
    str, typer.Option(help="Another state of the project: its folder, or a git revision of this one.")
]


def check(
    *, project: ProjectOption = Path(), against: AgainstOption = "", as_json: JsonOption = False
) -> None:
    """Find every mistake of a project before it is deployed, and what a change of it breaks.

    Runs features.py and the model and history modules, and no servers. Exit code 78 where something must be mended.

    Example: driftline check --project examples/flights --against HEAD~1
    """
    found, other = _examined(project, against)
    changes = () if other is None else project_changes(other, found)
    breaking = [change for change in changes if change.breaks]
    if as_json:
        answer = {
            "project": found.project.name if found.project else None,
            "ok": not found.mistakes and not breaking,
            "mistakes": [_as_json(mistake) for mistake in found.mistakes],
            "changes": [_change_as_json(change) for change in changes],
        }
        typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    else:
        _print_check(found, changes, against)
    if found.mistakes or breaking:
        raise typer.Exit(EXIT_CONFIGURATION)


def diff(
    before: Annotated[str, typer.Argument(metavar="VIEW@1", help="A view with its version.")],
    after: Annotated[str, typer.Argument(metavar="VIEW@2", help="Another version of it.")],
    *,
    project: ProjectOption = Path(),
    against: AgainstOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say what differs between two versions of a view, and which models read which.

    The first is looked for in --against before the project, the second in the project before --against.

    Example: driftline features diff origin_delays@1 origin_delays@2 --against HEAD~1
    """
    found, other = _examined(project, against)
    compared = compare_views(found, before, after, other)
    if as_json:
        typer.echo(orjson.dumps(_comparison_as_json(compared), option=orjson.OPT_INDENT_2).decode())
        return
    typer.echo("\n".join(map(str, compared.differences)) or f"{before} and {after} serve the same")
    for ref, models in compared.models.items():
        typer.echo(f"{ref} is read by {', '.join(models) or 'no model'}")


def _examined(project: Path, against: str) -> tuple[Examination, Examination | None]:
    """Check the project and its other state; what their modules print goes to the error stream."""
    with ExitStack() as stack:
        folder = stack.enter_context(other_state(project, against)) if against else None
        stack.enter_context(redirect_stdout(sys.stderr))
        return check_project(project), None if folder is None else check_project(folder)


def _print_check(found: Examination, changes: tuple[Change, ...], against: str) -> None:
    for mistake in found.mistakes:
        typer.echo(f"{_place(mistake)}: {mistake.text}")
    for change in changes:
        what = "breaks" if change.breaks else "changes"
        typer.echo(f"{_place(change.place)}: {what}: {change.place.text}")
    if found.project is None:
        return
    parts = {
        "event types": found.project.event_types,
        "views": found.project.views,
        "models": found.project.models,
    }
    counts = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
    typer.echo(
        f"{found.project.name}: {counts}; {len(found.mistakes) or 'no'} mistakes", err=bool(found.mistakes)
    )
    if against and not changes:
        typer.echo(f"nothing differs from {against} in what is served")


def _place(mistake: Mistake) -> str:
    return _file(mistake) + ("" if mistake.line is None else f":{mistake.line}")


def _file(mistake: Mistake) -> str:
    here = Path.cwd()
    inside = mistake.path.is_relative_to(here)
    return str(mistake.path.relative_to(here) if inside else mistake.path)


def _as_json(mistake: Mistake) -> dict[str, Any]:
    return {"file": _file(mistake), "line": mistake.line, "text": mistake.text}


def _change_as_json(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "breaks": change.breaks,
        **_as_json(change.place),
        "views": change.views,
        "models": change.models,
    }


def _comparison_as_json(compared: ViewComparison) -> dict[str, Any]:
    return {
        "before": compared.before.ref,
        "after": compared.after.ref,
        "differences": [
            {"aspect": one.aspect, "column": one.column, "before": one.before, "after": one.after}
            for one in compared.differences
        ],
        "models": compared.models,
    }
