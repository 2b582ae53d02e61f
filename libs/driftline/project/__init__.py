"""A project: its event types, entities, feature views and models, loaded from its folder and checked."""

from driftline.project.declaration import (
    DecisionRule,
    EventType,
    InputField,
    InputType,
    LabelRule,
    ModelDeclaration,
    MonitorRule,
    Never,
    Payoff,
    Project,
    ServiceLevelRule,
)
from driftline.project.life_rules import (
    AskingLevel,
    BreakerRule,
    CanaryRule,
    ComparisonRule,
    Promotion,
    PromotionRule,
    RetrainRule,
    ScreeningRule,
)
from driftline.project.loading import load_project
from driftline.project.store_rule import StoreRule, Unavailable

__all__ = [
    "AskingLevel",
    "BreakerRule",
    "CanaryRule",
    "ComparisonRule",
    "DecisionRule",
    "EventType",
    "InputField",
    "InputType",
    "LabelRule",
    "ModelDeclaration",
    "MonitorRule",
    "Never",
    "Payoff",
    "Project",
    "Promotion",
    "PromotionRule",
    "RetrainRule",
    "ScreeningRule",
    "ServiceLevelRule",
    "StoreRule",
    "Unavailable",
    "load_project",
]
