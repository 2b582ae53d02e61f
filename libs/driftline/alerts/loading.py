"""Read alert rules from a file: a project's ``driftline.yaml``, or one of an environment's own."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from driftline.alerts.rules import AlertRules, parse_rules
from driftline.runtime.errors import ConfigurationError


def load_rules(path: Path) -> AlertRules:
    """Return the rules in the ``alerts:`` section of a YAML file; the defaults where it has none.

    Raises
    ------
    ConfigurationError
        One line per mistake: the file, the place in it, what is wrong. Never shows a URL.
    """
    try:
        content = yaml.safe_load(path.read_text())
        return parse_rules((content or {}).get("alerts"))
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(['alerts', *(str(part) for part in problem['loc'])])}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError("\n".join(lines)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigurationError(f"{path}{line}: this is no YAML: {getattr(error, 'problem', '')}") from None
    except (OSError, UnicodeDecodeError, AttributeError) as error:
        raise ConfigurationError(f"{path}: the alert rules cannot be read: {error}") from error
