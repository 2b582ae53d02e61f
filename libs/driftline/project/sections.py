"""The sections of ``driftline.yaml``, as they are written and checked."""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from driftline.alerts.rules import AlertRules
from driftline.project.declaration import InputType, Never
from driftline.project.life_sections import BreakerSection, Duration, PromotionSection, RetrainSection
from driftline.project.store_rule import StoreSection

_NAME = r"^[a-z][a-z0-9_]{0,62}$"
_Name = Annotated[str, StringConstraints(pattern=_NAME)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EventTypeSection(_Strict):
    """``events.<name>``."""

    schema_: str = Field(alias="schema")
    key: str
    event_time: str
    event_id: str = "event_id"
    partitions: int | None = Field(default=None, ge=1, le=1024)
    table: bool = False


class InputSection(_Strict):
    """``models.<name>.inputs.<name>``."""

    type: InputType
    description: str = ""
    identifier: bool = False


class LabelSection(_Strict):
    """``models.<name>.label``."""

    horizon: Duration
    key: str | None = None
    never: Never = Never.EXCLUDE
    description: str = ""


class PayoffSection(_Strict):
    """``models.<name>.value.<decision>``."""

    positive: float
    negative: float


class MonitorSection(_Strict):
    """``models.<name>.monitor``."""

    window: Duration = "1d"
    grace: Duration = "1h"
    damage_windows: int = Field(default=7, ge=1, le=60)
    least_windows: int = Field(default=5, ge=1, le=60)
    alert_log_loss: float | None = 0.02
    retrain_log_loss: float | None = 0.04
    alert_value: float | None = None
    retrain_value: float | None = None
    quiet_windows: int = Field(default=2, ge=1, le=60)
    ignore: tuple[str, ...] = ()


class ServiceLevelSection(_Strict):
    """``models.<name>.service_levels``."""

    latency: Duration
    latency_share: float = Field(default=0.99, gt=0, lt=1)
    availability: float = Field(default=0.999, gt=0, lt=1)


class DecisionSection(_Strict):
    """``models.<name>.decision``."""

    threshold: float
    above: str
    below: str


class ModelSection(_Strict):
    """``models.<name>``."""

    description: str = ""
    owner: str = ""
    module: str = "model.py"
    entities: list[str]
    views: list[str]
    inputs: dict[_Name, InputSection] = {}
    decision: DecisionSection
    label: LabelSection | None = None
    value: dict[str, PayoffSection] = {}
    segments: list[str] = []
    baseline: str | None = None
    monitor: MonitorSection = MonitorSection()
    promotion: PromotionSection = PromotionSection()
    breaker: BreakerSection = BreakerSection()
    retrain: RetrainSection = RetrainSection()
    service_levels: ServiceLevelSection | None = None
    store: StoreSection = StoreSection()


class CodeVersionSection(_Strict):
    """``code_lists.<name>.versions[]``: from when on it is written, and what became of the codes before."""

    version: int
    since: AwareDatetime
    from_: dict[str, str] = Field(alias="from")
    back: dict[str, str] = {}


class CodeListSection(_Strict):
    """``code_lists.<name>``."""

    events: dict[str, list[str]] = {}
    inputs: list[str] = []
    reads: int = Field(default=1, ge=1)
    versions: list[CodeVersionSection] = Field(min_length=1)


class ProjectFile(_Strict):
    """All of ``driftline.yaml``."""

    name: _Name
    owner: str
    description: str = ""
    features: str = "features.py"
    history: str | None = None
    future_skew: Duration = "5m"
    max_jump: Duration | None = None
    refuse_past_deprecations: bool = False
    freshness: dict[_Name, Duration] = {}
    alerts: AlertRules = Field(default_factory=AlertRules)
    events: dict[_Name, EventTypeSection]
    models: dict[_Name, ModelSection] = {}
    code_lists: dict[_Name, CodeListSection] = {}
