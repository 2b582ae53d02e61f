"""What is to be done about a partition's views: which are complete, which are to be filled. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from driftline.features.filling import Fill, Fingerprints, StoredViews
from driftline.runtime.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The views that a partition holds whole, and the backfill of the others (None: there are none).

    ``anew`` says that the backfill begins: whatever an earlier one left is to be deleted.
    """

    views: StoredViews
    fill: Fill | None
    anew: bool


def reconcile(stored: StoredViews, fill: Fill | None, declared: Fingerprints, now_us: int) -> Plan:
    """Return what a partition needs for its views to be those that are declared.

    A view that is no longer declared is true of no offset from now on. A backfill goes on if it is of the very views
    that are needed, and begins anew otherwise.

    Raises
    ------
    ConfigurationError
        The windows, fields or conditions of a complete view were changed under the same version.
    """
    _refuse_changed(stored.complete, declared)
    complete = {ref: mark for ref, mark in stored.complete.items() if ref in declared}
    left = {*stored.left, *(ref for ref in stored.complete if ref not in declared)}
    wanted = {ref: mark for ref, mark in declared.items() if ref not in complete}
    if fill is not None and fill.views == wanted:
        return Plan(views=_views(complete, left), fill=fill, anew=False)
    left |= set() if fill is None else set(fill.views)
    if not wanted:
        return Plan(views=_views(complete, left), fill=None, anew=fill is not None)
    begun = Fill(views=wanted, clearing=tuple(sorted(left & set(wanted))), begun_us=now_us)
    return Plan(views=_views(complete, left), fill=begun, anew=True)


def completed(stored: StoredViews, fill: Fill) -> StoredViews:
    """Return a partition's views once a backfill is through."""
    return _views({**stored.complete, **fill.views}, set(stored.left) - set(fill.views))


def _views(complete: Mapping[str, int], left: set[str]) -> StoredViews:
    return StoredViews(complete=complete, left=tuple(sorted(left)))


def _refuse_changed(complete: Fingerprints, declared: Fingerprints) -> None:
    for ref, mark in complete.items():
        if declared.get(ref, mark) != mark:
            name, _, version = ref.rpartition("@")
            msg = (
                f"the store holds {ref} by another declaration of feature view {name!r}: what its rows hold has "
                f"changed. Raise its version (now {version}) and start again"
            )
            raise ConfigurationError(msg)
