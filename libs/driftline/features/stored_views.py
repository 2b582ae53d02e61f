"""Where the blobs of a view's entities are in the online store: worked out once per view, then a few texts per read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from driftline.features.declarations import Entity, FeatureView
from driftline.features.entity_keys import split_key
from driftline.features.keys import blob_key, partition_of
from driftline.features.layout import ViewLayout
from driftline.project.declaration import Project

#: Views that are remembered; a project has far fewer.
_MOST_VIEWS = 1_024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredView:
    """One view's blobs.

    Attributes
    ----------
    stems
        The beginnings of its keys, one per partition of the topic.
    keyed
        Whether the topic is keyed by the view's entity, or by one of the fields that make it up: then an entity's
        events are in one partition, otherwise it may have a blob in each.
    place
        Which part of a composite entity's key is the topic's, where it is keyed by one.
    """

    view: FeatureView
    layout: ViewLayout
    stems: tuple[str, ...]
    keyed: bool
    place: int

    @property
    def parts(self) -> int:
        """How many blobs are read of one entity."""
        return 1 if self.keyed else len(self.stems)

    def keys(self, entities: Sequence[str]) -> list[str]:
        """Return the keys of entities' blobs, all parts of one entity side by side.

        Raises
        ------
        RefusedError
            If a text is no key of a composite entity.
        """
        stems, entity = self.stems, self.view.entity
        if entity.composite:
            return self._composite_keys(entity, entities)
        if self.keyed:
            return [stems[partition_of(one, len(stems))] + one for one in entities]
        return [stem + one for one in entities for stem in stems]

    def _composite_keys(self, entity: Entity, entities: Sequence[str]) -> list[str]:
        stems = self.stems
        split = [split_key(entity, one) for one in entities]
        if not self.keyed:
            return [stem + one for one in entities for stem in stems]
        homes = [partition_of(parts[self.place], len(stems)) for parts in split]
        return [stems[home] + one for home, one in zip(homes, entities, strict=True)]


class StoredViews:
    """The views of a project's online store, by their declarations."""

    def __init__(self, prefix: str, project: Project, partitions: Mapping[str, int]) -> None:
        self._prefix = prefix
        self._project = project
        self._partitions = partitions
        # By identity, for a declaration takes longer to hash than its blobs to read. Each holds its declaration, so no
        # other one can have the same.
        self._known: dict[int, StoredView] = {}

    def of(self, view: FeatureView) -> StoredView:
        """Return where a view's blobs are."""
        known = self._known.get(id(view))
        return self._add(view) if known is None else known

    def _add(self, view: FeatureView) -> StoredView:
        event_type = view.source.event_type
        topic_key = self._project.event_type(event_type).key
        fields = view.source.entity_fields
        added = StoredView(
            view=view,
            layout=ViewLayout.of(view),
            stems=tuple(
                blob_key(self._prefix, event_type, home, view.ref, "")
                for home in range(self._partitions[event_type])
            ),
            keyed=topic_key in fields,
            place=fields.index(topic_key) if topic_key in fields else 0,
        )
        if len(self._known) >= _MOST_VIEWS:
            self._known.clear()
        self._known[id(view)] = added
        return added
