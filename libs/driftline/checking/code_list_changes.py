"""What changes in a project's code lists: whose values are read otherwise from now on."""

from collections.abc import Iterator
from dataclasses import dataclass

from driftline.features import FeatureView
from driftline.features.code_lists import CodeList
from driftline.features.layout import coded_fields
from driftline.project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeListChange:
    """A change of a list in words, and the references of the views, and the models, that read its values."""

    name: str
    text: str
    views: tuple[str, ...]
    models: tuple[str, ...]


def code_list_changes(before: Project, after: Project) -> Iterator[CodeListChange]:
    """Yield the lists that came, went, or say otherwise what they said; what a list reads is its views' change."""
    old, new = _lists(before), _lists(after)
    for name in [*old, *(one for one in new if one not in old)]:
        text = _change(old.get(name), new.get(name))
        if text:
            views, models = _readers(after if name in new else before, name)
            yield CodeListChange(name=name, text=f"code list {name!r} {text}", views=views, models=models)


def _change(old: CodeList | None, new: CodeList | None) -> str:
    if old is None or new is None:
        return "is new" if old is None else "is gone: its values are read as they are written"
    same = new.versions[: len(old.versions)] == old.versions
    if not same:
        return "says otherwise what became of codes; what is stored, trained and logged stays as it was"
    if len(new.versions) > len(old.versions):
        return f"has a version {len(new.versions) + 1}"
    return f"is read in version {new.reads}, not {old.reads}" if new.reads != old.reads else ""


def _lists(project: Project) -> dict[str, CodeList]:
    views = (one.codes for view in project.views.values() for source in view.sources for one in source.codes)
    inputs = (one.codes for model in project.models.values() for one in model.coded_inputs)
    return {codes.name: codes for codes in (*views, *inputs)}


def _readers(project: Project, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    def reads(view: FeatureView) -> bool:
        return any(one.codes.name == name for one in coded_fields(view))

    models = (
        model.name
        for model in project.models.values()
        if any(map(reads, model.views)) or any(one.codes.name == name for one in model.coded_inputs)
    )
    return tuple(view.ref for view in project.views.values() if reads(view)), tuple(models)
