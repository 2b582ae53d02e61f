"""The topics manifest, `schemas/topics.yaml`: the one owner of every topic's name and settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from driftline.project import Project
from driftline.runtime.durations import parse_duration_us
from driftline.runtime.errors import ConfigurationError

EVENTS = "events"
PREDICTION_REQUESTS = "prediction-requests"
PREDICTIONS = "predictions"
LABELS = "labels"
OUTCOMES = "outcomes"
PROFILES = "profiles"
WINDOW_REPORTS = "window-reports"
DRIFT_SIGNALS = "drift-signals"
RETRAIN_REQUESTS = "retrain-requests"
MODEL_EVENTS = "model-events"
ALERTS = "alerts"
ALERT_INPUTS = "alert-inputs"
DEAD_LETTERS = "dead-letters"


def _retention_ms(value: object) -> object:
    return parse_duration_us(value) // 1_000 if isinstance(value, str) else value


class Stream(BaseModel):
    """One stream of the manifest. ``retention_ms`` is in milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    key: str
    schema_: str = Field(alias="schema")
    producers: tuple[str, ...] = Field(min_length=1)
    consumers: tuple[str, ...] = Field(min_length=1)
    partitions: int = Field(ge=1, le=1024)
    retention_ms: Annotated[int, BeforeValidator(_retention_ms)] = Field(alias="retention", ge=1)
    cleanup: Literal["delete", "compact", "compact,delete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All streams of the platform, by name."""

    streams: Mapping[str, Stream]


def schemas_folder() -> Path:
    """Return the folder of the platform's schemas: the checkout's, else the installed package's."""
    package = Path(__file__).parents[1]
    for folder in (package.parents[1] / "schemas", package / "schemas"):
        if (folder / "topics.yaml").is_file():
            return folder
    raise ConfigurationError("schemas/topics.yaml is missing: driftline is not installed completely")


@cache
def load_manifest() -> Manifest:
    """Load and check the manifest.

    Raises
    ------
    ConfigurationError
        Where an entry is incomplete or wrong; the message names the stream and the key.
    """
    path = schemas_folder() / "topics.yaml"
    try:
        declared = yaml.safe_load(path.read_text())["streams"]
        streams = {name: Stream(name=name, **spec) for name, spec in declared.items()}
    except (ValidationError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return Manifest(streams=streams)


class Topics:
    """Names of a project's topics.

    >>> Topics("flights").predictions
    'flights.predictions'
    >>> Topics("flights", "staging").events("arrivals")
    'staging.flights.arrivals'
    """

    def __init__(self, project: str, environment: str = "") -> None:
        self.prefix = f"{environment}.{project}" if environment else project

    def stream(self, name: str) -> str:
        """Return the topic of one of the manifest's streams."""
        return f"{self.prefix}.{name}"

    def events(self, event_type: str) -> str:
        """Return the topic of an event type."""
        return self.stream(event_type)

    @property
    def prediction_requests(self) -> str:
        """The topic of requests."""
        return self.stream(PREDICTION_REQUESTS)

    @property
    def predictions(self) -> str:
        """The topic of the prediction log."""
        return self.stream(PREDICTIONS)

    @property
    def labels(self) -> str:
        """The topic of labels."""
        return self.stream(LABELS)

    @property
    def outcomes(self) -> str:
        """The topic of outcomes."""
        return self.stream(OUTCOMES)

    @property
    def dead_letters(self) -> str:
        """The topic of dead letters."""
        return self.stream(DEAD_LETTERS)

    def all_of(self, project: Project) -> dict[str, Stream]:
        """Return every topic of a project with its stream; event types with their own partition count."""
        streams = load_manifest().streams
        topics = {}
        for event_type in project.event_types.values():
            template = streams[EVENTS]
            partitions = event_type.partitions or template.partitions
            own = {"partitions": partitions, **({"cleanup": "compact"} if event_type.table else {})}
            topics[self.events(event_type.name)] = template.model_copy(update=own)
        for name, stream in streams.items():
            if name != EVENTS:
                topics[self.stream(name)] = stream
        return topics

    @staticmethod
    def subject(topic: str) -> str:
        """Return the registry's subject for the values of a topic."""
        return f"{topic}-value"


def event_partitions(topics: Topics, project: Project) -> dict[str, int]:
    """Return how many partitions the topic of each event type has that views may read, as the project declares it."""
    declared = topics.all_of(project)
    return {name: declared[topics.events(name)].partitions for name in project.fed_by}
