"""Every mistake of a project that shows without servers: its files, its Python, the schemas made from it."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from driftline.checking.places import located, repeated_keys
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import outcome_schema, prediction_request_schema, prediction_schema
from driftline.features.layout import ViewLayout
from driftline.models.fitting import bounds_of, candidates_of
from driftline.project import ModelDeclaration, Project
from driftline.project.deprecations import DeprecatedUse, deprecated_uses
from driftline.project.loading import FILE, Examination, examine_project
from driftline.project.mistakes import Mistake, ProjectError
from driftline.project.modules import code_mistake, fresh_modules, run_module
from driftline.runtime.clock import SystemClock
from driftline.runtime.errors import ConfigurationError

#: Schemas that are made from what a project declares, by the stream that they are for.
GENERATED = {
    "prediction-requests": prediction_request_schema,
    "predictions": prediction_schema,
    "outcomes": outcome_schema,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """A model that reads a deprecated view; ``place`` is where, and what to do. ``past``: the last day is over."""

    use: DeprecatedUse
    place: Mistake
    past: bool


def check_project(folder: Path, *, today: date | None = None) -> Examination:
    """Examine a project and all that its services would load of it; its mistakes have their lines, in their order.

    ``today`` is a day in UTC, by which deprecated views are past; the clock's unless said.

    Raises
    ------
    ConfigurationError
        The folder is no project.
    """
    with fresh_modules(folder.resolve()):
        found = examine_project(folder)
        mistakes = [*found.mistakes, *_repeated(folder.resolve() / FILE)]
        if found.project is not None:
            mistakes += _later_mistakes(found, found.project)
            mistakes += _past_mistakes(found.project, today or _today())
    told = dict.fromkeys(map(located, mistakes))
    return replace(found, mistakes=tuple(sorted(told, key=lambda one: (str(one.path), one.line or 0))))


def project_warnings(found: Examination, *, today: date | None = None) -> tuple[Warned, ...]:
    """Return the uses of deprecated views that are no mistakes, with their lines."""
    if found.project is None:
        return ()
    today = today or _today()
    return tuple(
        Warned(use=use, place=located(_use_place(found.project, use)), past=use.past(today))
        for use in deprecated_uses(found.project)
        if not (found.project.refuse_past_deprecations and use.past(today))
    )


def _past_mistakes(project: Project, today: date) -> Iterator[Mistake]:
    if project.refuse_past_deprecations:
        yield from (_use_place(project, use) for use in deprecated_uses(project) if use.past(today))


def _use_place(project: Project, use: DeprecatedUse) -> Mistake:
    index = [view.ref for view in project.models[use.model].views].index(use.view)
    return Mistake(
        path=project.folder / FILE,
        text=f"model {use.model!r} (owner {use.owner}): {use}",
        keys=("models", use.model, "views", index),
    )


def _today() -> date:
    return datetime.fromtimestamp(SystemClock().now_us() / 1e6, tz=UTC).date()


def _later_mistakes(found: Examination, project: Project) -> Iterator[Mistake]:
    """Yield what only shows where the parts are used."""
    for event_type in project.event_types.values():
        try:
            arrow_schema(event_type.schema)
        except ConfigurationError as error:
            yield Mistake(path=event_type.schema_path, text=f"event type {event_type.name!r}: {error}")
    for view in project.views.values():
        try:
            for part in view.stored:
                ViewLayout.of(part)
        except ConfigurationError as error:
            names = (found.variables[view.name],)
            yield Mistake(path=found.features_file or project.folder, text=str(error), names=names)
    yield from _generated_mistakes(project)
    yield from _history_mistakes(project)
    for name, module in found.modules.items():
        ran = yield from _module_run(project, name, module)
        if ran and name in project.models and name not in found.incomplete_models:
            yield from _use_mistakes(project.models[name])


def _generated_mistakes(project: Project) -> Iterator[Mistake]:
    for make in GENERATED.values():
        try:
            make(project)
        except ConfigurationError as error:
            yield Mistake(path=project.folder / FILE, text=str(error), keys=("models",))
            return


def _history_mistakes(project: Project) -> Iterator[Mistake]:
    path = project.history_module
    if path is None:
        return
    if not path.is_file():
        text = f"history: {path.name} does not exist; mend its name, or write it"
        yield Mistake(path=project.folder / FILE, text=text, keys=("history",))
        return
    ran = run_module(path)
    yield from ran.mistakes
    if not ran.mistakes and not callable(ran.values.get("history")):
        yield Mistake(path=path, text="has no function history(start, end); write it")


def _module_run(project: Project, name: str, path: Path) -> Generator[Mistake, None, bool]:
    """Yield what is wrong with running a model's file; return whether all of it could be run."""
    if not path.is_file():
        text = f"model {name!r}: its module {path.name} does not exist; mend its name, or write it"
        yield Mistake(path=project.folder / FILE, text=text, keys=("models", name, "module"))
        return False
    ran = run_module(path)
    yield from ran.mistakes
    return not ran.mistakes


def _use_mistakes(model: ModelDeclaration) -> Iterator[Mistake]:
    """Yield what a model's file answers wrongly, or raises, when it is asked."""
    path = model.module
    for use in (candidates_of, bounds_of):
        try:
            use(model)
        except ProjectError as error:
            yield from error.mistakes
        except ConfigurationError as error:
            yield Mistake(path=path, text=str(error).removeprefix(f"{path}: "))
        except Exception as error:  # noqa: BLE001  (the project's own code may raise anything)
            mistake = code_mistake(path, error)
            yield replace(mistake, text=f"model {model.name!r}: {mistake.text}")


def _repeated(path: Path) -> Iterator[Mistake]:
    for line, key in repeated_keys(path.read_text(errors="replace")):
        yield Mistake(path=path, line=line, text=f"{key}: is written twice; remove one of them")
