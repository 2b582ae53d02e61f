"""A project: its event types, entities, feature views and models, loaded from its folder and checked."""

from driftline.project.declaration import (
    DecisionRule,
    EventType,
    InputField,
    InputType,
    ModelDeclaration,
    Project,
)
from driftline.project.loading import load_project

__all__ = [
    "DecisionRule",
    "EventType",
    "InputField",
    "InputType",
    "ModelDeclaration",
    "Project",
    "load_project",
]
