"""Import a project's Python files: they are the user's code, so a mistake is told with its line."""

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from driftline.runtime.errors import ConfigurationError


def load_module(path: Path) -> ModuleType:
    """Import a project's Python file under a name of its own, its folder importable while it loads."""
    name = f"driftline_project_{path.parent.name}_{path.stem}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"{path} does not exist")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything; they need the line
        del sys.modules[name]
        raise ConfigurationError(_explain_code(path, error)) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _explain_code(path: Path, error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}: {error.msg}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    place = f"{path}:{lines[-1]}" if lines else str(path)
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{place}: {kind}{error}"
