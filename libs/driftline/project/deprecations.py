"""Deprecated views: mistakes in what is said of them, and who still reads them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from driftline.project.declaration import ModelDeclaration, Project
from driftline.project.mistakes import Mistake, meant
from driftline.project.view_loading import DeclaredViews


@dataclass(frozen=True, slots=True, kw_only=True)
class DeprecatedUse:
    """A model that reads a deprecated view. ``until`` is the last day that it should; ``successor`` may be empty."""

    model: str
    owner: str
    view: str
    until: date
    successor: str

    def past(self, today: date) -> bool:
        """Whether the last day is over; days are UTC's."""
        return today > self.until

    def __str__(self) -> str:
        """Return what is to be done about it.

        >>> str(DeprecatedUse(model="m", owner="o", view="a@1", until=date(2026, 12, 31), successor="b@2"))
        'a@1 is deprecated, read it until 2026-12-31 at most; its successor is b@2'
        """
        after = f"its successor is {self.successor}" if self.successor else "it has no successor"
        return f"{self.view} is deprecated, read it until {self.until} at most; {after}"


def deprecated_uses(project: Project) -> tuple[DeprecatedUse, ...]:
    """Return every use of a deprecated view by a model of the project, in declared order."""
    return tuple(use for model in project.models.values() for use in uses_of(model))


def uses_of(model: ModelDeclaration) -> Iterator[DeprecatedUse]:
    """Yield the deprecated views that a model reads."""
    for view in model.views:
        if view.deprecated_until is not None:
            yield DeprecatedUse(
                model=model.name,
                owner=model.owner,
                view=view.ref,
                until=view.deprecated_until,
                successor=view.successor,
            )


def deprecation_mistakes(path: Path, found: DeclaredViews) -> Iterator[Mistake]:
    """Yield the successors that are not there, describe another entity, or are deprecated themselves."""
    views = {view.ref: view for view in found.views.values()}
    for view in found.views.values():
        if not view.successor:
            continue
        after = views.get(view.successor)
        if after is None:
            name = view.successor.partition("@")[0]
            if name not in found.views and (found.lost is None or name in found.lost):
                continue  # it stands in a declaration that has a mistake of its own
            there = found.views[name].ref if name in found.views else ""
            near = f"; there is {there}" if there else meant(view.successor, views)
            what = f"is not declared{near}"
        elif after.entity != view.entity:
            what = (
                f"describes {after.entity.name!r}, not {view.entity.name!r}; name a view of the same entity"
            )
        elif after.deprecated:
            what = "is deprecated itself; name the view that stays"
        else:
            continue
        text = f"feature view {view.name!r}: its successor {view.successor} {what}"
        yield Mistake(path=path, text=text, names=(found.variables[view.name], view.successor))
