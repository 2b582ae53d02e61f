"""`driftline features diff`: what a new version of a view changes, and for whom, without servers."""

import sys
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from driftline.checking.revisions import other_state
from driftline.checking.view_versions import ViewComparison, compare_views
from driftline.cli.options import AgainstOption, JsonOption, ProjectOption, echo_json
from driftline.project.loading import Examination, examine_project
from driftline.project.modules import fresh_modules


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
    with ExitStack() as stack:
        folder = stack.enter_context(other_state(project, against)) if against else None
        stack.enter_context(redirect_stdout(sys.stderr))  # what the project's files print
        found = _examined(project)
        other = None if folder is None else _examined(folder)
    compared = compare_views(found, before, after, other)
    if as_json:
        echo_json(_comparison_as_json(compared))
        return
    typer.echo("\n".join(map(str, compared.differences)) or f"{before} and {after} serve the same")
    for ref, models in compared.models.items():
        typer.echo(f"{ref} is read by {', '.join(models) or 'no model'}")


def _examined(folder: Path) -> Examination:
    with fresh_modules(folder.resolve()):
        return examine_project(folder)


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
