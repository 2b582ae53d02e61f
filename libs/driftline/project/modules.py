"""Import a project's Python files: they are the user's code, so a mistake is told with its line."""

import ast
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from driftline.project.mistakes import Mistake, ProjectError

_PREFIX = "driftline_project_"


def load_module(path: Path) -> ModuleType:
    """Import a project's Python file under a name of its own, its folder importable while it loads."""
    name = _module_name(path)
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ProjectError.of(path, "does not exist; mend its name in driftline.yaml, or write it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything; they need the line
        del sys.modules[name]
        raise ProjectError([code_mistake(path, error)]) from error
    return module


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRun:
    """What could be run of a Python file.

    Attributes
    ----------
    values
        The file's names, but for those that the statements with mistakes would have given.
    mistakes
        One per statement that raised for a reason of its own.
    texts
        The texts in statements that raised, so that what they would have declared is not missed; None: any.
    """

    values: dict[str, object]
    mistakes: tuple[Mistake, ...]
    texts: frozenset[str] | None


def run_module(path: Path) -> ModuleRun:
    """Import a project's Python file; where it raises, run what of it can be run."""
    try:
        return ModuleRun(values=vars(load_module(path)), mistakes=(), texts=frozenset())
    except ProjectError as error:
        found = _salvaged(path) if path.is_file() else None
        if found is None or not found.mistakes:  # it is not there, or raised only the first time
            return ModuleRun(values={}, mistakes=error.mistakes, texts=None)
        return found


def _salvaged(path: Path) -> ModuleRun:
    """Run a Python file statement by statement, past those that raise: one mistake must not hide the next."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError) as error:
        return ModuleRun(values={}, mistakes=(code_mistake(path, error),), texts=None)
    module = ModuleType(_module_name(path))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    mistakes: list[Mistake] = []
    lost: set[str] = set()
    texts: set[str] = set()
    future = [one for one in tree.body if isinstance(one, ast.ImportFrom) and one.module == "__future__"]
    with _importable(path.parent):
        for statement in tree.body:
            code = ast.Module([*future, statement], [])
            try:
                exec(compile(code, str(path), "exec", dont_inherit=True), vars(module))  # noqa: S102  (an import)
            except Exception as error:  # noqa: BLE001  (the user's own code may raise anything)
                if not (isinstance(error, NameError) and error.name in lost):
                    mistakes.append(code_mistake(path, error))
                lost |= _bound(statement)
                texts |= {str(node.value) for node in ast.walk(statement) if isinstance(node, ast.Constant)}
    del sys.modules[module.__name__]
    return ModuleRun(values=vars(module), mistakes=tuple(mistakes), texts=frozenset(texts))


@contextmanager
def fresh_modules(folder: Path) -> Iterator[None]:
    """Forget what a project's files import in the block: another version of them may have the same names.

    No bytecode is written: nothing appears in the folder, and of a file that is changed within a second none is stale.
    """
    before = {name for name in sys.modules if not name.startswith(_PREFIX)}
    _forget(folder, before)
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_none
        _forget(folder, before)


def code_mistake(path: Path, error: Exception) -> Mistake:
    """Return what a project's Python file raised, with the file's own line where it passed."""
    if isinstance(error, SyntaxError):
        return Mistake(path=path, line=error.lineno, text=error.msg)
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return Mistake(path=path, line=lines[-1] if lines else None, text=f"{kind}{error}")


def _module_name(path: Path) -> str:
    return f"{_PREFIX}{path.parent.name}_{path.stem}"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _forget(folder: Path, kept: set[str]) -> None:
    for name in set(sys.modules) - kept:
        file = Path(getattr(sys.modules[name], "__file__", None) or "/")
        installed = name.partition(".")[0] == "driftline" or "site-packages" in file.parts
        if file.is_relative_to(folder) and not installed:
            del sys.modules[name]


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement would have given."""
    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
    return found
