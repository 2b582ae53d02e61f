"""Lines of what a mistake is about: of keys in YAML, of declarations in Python."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace

import yaml

from driftline.project.mistakes import Mistake

_DEEPEST_NAME = 4


def located(mistake: Mistake) -> Mistake:
    """Return a mistake with its line, where the file's text tells one."""
    if mistake.line is not None or not mistake.path.is_file():
        return mistake
    text = mistake.path.read_text(errors="replace")
    line = None
    if mistake.path.suffix in {".yaml", ".yml"}:
        line = yaml_line(text, mistake.keys)
    elif mistake.path.suffix in {".avsc", ".json"}:
        line = yaml_line(text.replace("\t", " "), mistake.keys)  # JSON is YAML but for tabs
    elif mistake.path.suffix == ".py" and mistake.names:
        line = python_line(text, mistake.names[0], mistake.names[1:], mistake.nth)
    return replace(mistake, line=line)


def yaml_line(text: str, keys: Sequence[str | int]) -> int | None:
    """Return the line of a key or an item, of the nearest one around it where it is not there.

    For what is no YAML, the line where that shows.

    >>> yaml_line("name: a\\nmodels:\\n  b:\\n    views: [c,\\n      d]\\n", ["models", "b", "views", 1])
    5
    >>> yaml_line("name: a\\nmodels:\\n  b: {}\\n", ["models", "b", "decision"])
    3
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        return None if error.problem_mark is None else int(error.problem_mark.line) + 1
    except yaml.YAMLError:
        return None
    if node is None:
        return None
    line = int(node.start_mark.line) + 1
    for key in keys:
        found = _member(node, key)
        if found is None:
            break
        line, node = found
    return line


def repeated_keys(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of the keys that a mapping has again: YAML takes the last, silently.

    >>> list(repeated_keys("name: a\\nmodels:\\n  b: 1\\n  b: 2\\n"))
    [(4, 'models.b')]
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return
    if node is not None:
        yield from _repeated(node, ())


def python_line(text: str, variable: str, texts: Sequence[str] = (), nth: int = 0) -> int | None:
    """Return the line of a declaration, or within it of the ``nth`` place where a text is written.

    What the declaration names in turn is looked through as well; a text that is nowhere is the declaration's.

    >>> file = 'sales = Source(\\n  "sails")\\nview = FeatureView(\\n  source=sales)\\n'
    >>> python_line(file, "view"), python_line(file, "view", ["sails"]), python_line(file, "view", ["none"])
    (3, 2, 3)
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    statement = _binding(tree, variable)
    if statement is None:
        return None
    for wanted in reversed(texts):
        lines = sorted(_lines(tree, statement, wanted, 0))
        if lines:
            return lines[min(nth, len(lines) - 1)]
    return statement.lineno


def _member(node: yaml.Node, key: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return int(name.start_mark.line) + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        item = node.value[key]
        return int(item.start_mark.line) + 1, item
    return None


def _repeated(node: yaml.Node, way: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            here = (*way, str(name.value))
            if isinstance(name, yaml.ScalarNode):
                if name.value in seen:
                    yield int(name.start_mark.line) + 1, ".".join(here)
                seen.add(name.value)
            yield from _repeated(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*way, str(index)))


def _binding(tree: ast.Module, variable: str) -> ast.stmt | None:
    """Return the last statement that gives a variable its value."""
    found = None
    for statement in tree.body:
        for node in ast.walk(statement):
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == variable
            if stored or (isinstance(node, ast.alias) and (node.asname or node.name) == variable):
                found = statement
    return found


def _lines(tree: ast.Module, statement: ast.stmt, text: str, depth: int) -> list[int]:
    """Return the lines of a text in a statement, or else in what it names."""
    nodes = list(ast.walk(statement))
    lines = [node.lineno for node in nodes if isinstance(node, ast.Constant) and node.value == text]
    if lines or depth == _DEEPEST_NAME:
        return lines
    for node in nodes:
        named = _binding(tree, node.id) if isinstance(node, ast.Name) else None
        if named is not None and named is not statement:
            lines += _lines(tree, named, text, depth + 1)
    return lines
