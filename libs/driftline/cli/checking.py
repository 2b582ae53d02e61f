"""`driftline check`: look at a project before it is deployed, without servers."""

import sys
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

import typer

from driftline.checking.changes import Change, project_changes
from driftline.checking.project_check import Warned, check_project, project_warnings
from driftline.checking.revisions import other_state
from driftline.cli.options import AgainstOption, JsonOption, ProjectOption, echo_json
from driftline.project.loading import FILE, Examination
from driftline.project.mistakes import Mistake
from driftline.runtime.errors import EXIT_CONFIGURATION


def check(
    *, project: ProjectOption = Path(), against: AgainstOption = "", as_json: JsonOption = False
) -> None:
    """Find every mistake of a project before it is deployed, and what a change of it breaks.

    Warns of models that read deprecated views. Runs features.py and the model and history modules, and no servers. Exit code 78 where something must be mended.

    Example: driftline check --project examples/flights --against HEAD~1
    """
    found, other = _examined(project, against)
    changes = () if other is None else project_changes(other, found)
    warned = project_warnings(found)
    breaking = [change for change in changes if change.breaks]
    if as_json:
        answer = {
            "project": found.project.name if found.project else None,
            "ok": not found.mistakes and not breaking,
            "mistakes": [_as_json(mistake) for mistake in found.mistakes],
            "warnings": [_warning_as_json(one) for one in warned],
            "changes": [_change_as_json(change) for change in changes],
            "against": other and {"state": against, "mistakes": len(other.mistakes)},
        }
        echo_json(answer)
    else:
        _print_check(found, changes, warned)
        typer.echo(_summary(found, other, changes, against, warned), err=bool(found.mistakes))
    if found.mistakes or breaking:
        raise typer.Exit(EXIT_CONFIGURATION)


def _examined(project: Path, against: str) -> tuple[Examination, Examination | None]:
    """Check the project and its other state; what their modules print goes to the error stream."""
    with ExitStack() as stack:
        folder = stack.enter_context(other_state(project, against)) if against else None
        stack.enter_context(redirect_stdout(sys.stderr))
        return check_project(project), None if folder is None else check_project(folder)


def _print_check(found: Examination, changes: tuple[Change, ...], warned: tuple[Warned, ...]) -> None:
    for mistake in found.mistakes:
        typer.echo(f"{_place(mistake)}: {mistake.text}")
    for one in warned:
        over = " (that day is past)" if one.past else ""
        typer.echo(f"{_place(one.place)}: warning: {one.place.text}{over}")
    for change in changes:
        what = "breaks" if change.breaks else "changes"
        typer.echo(f"{_place(change.place)}: {what}: {change.place.text}")


def _summary(
    found: Examination,
    other: Examination | None,
    changes: tuple[Change, ...],
    against: str,
    warned: tuple[Warned, ...],
) -> str:
    told = f"{_what_is_there(found)}: {_counted(len(found.mistakes), 'mistake')}"
    if warned:
        told += f", {_counted(len(warned), 'warning')}"
    if other is None:
        return told
    if found.project is None or other.project is None:
        unread = against if other.project is None else FILE
        return f"{told}; against {against}: nothing compared, {unread} cannot be read"
    breaking = sum(change.breaks for change in changes)
    rest = _counted(len(changes) - breaking, "other change")
    told += f"; against {against}: {_counted(breaking, 'breaking change')}, {rest}"
    if other.mistakes:
        return f"{told}; compared as far as {against} can be read, which has {_counted(len(other.mistakes), 'mistake')}"
    return f"{told}; compared as far as it can be read" if found.mistakes else told


def _what_is_there(found: Examination) -> str:
    """Return the project's name, and how much it declares where all of it could be read."""
    if found.project is None:
        return FILE
    if found.mistakes:
        return found.project.name
    parts = (
        _counted(len(found.project.event_types), "event type"),
        _counted(len(found.project.views), "view"),
        _counted(len(found.project.models), "model"),
    )
    return f"{found.project.name} ({', '.join(parts)})"


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


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


def _warning_as_json(one: Warned) -> dict[str, Any]:
    use = one.use
    return {
        **_as_json(one.place),
        "model": use.model,
        "owner": use.owner,
        "view": use.view,
        "deprecated": use.until.isoformat(),
        "successor": use.successor or None,
        "past": one.past,
    }
