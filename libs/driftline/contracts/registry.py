"""The schema registry: Apicurio by default, any that speaks Confluent's API."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import httpx2
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from driftline.contracts.compatibility import BACKWARD_ADVICE, explain_incompatibility
from driftline.contracts.project_schemas import (
    PLATFORM_RECORDS,
    label_schema,
    outcome_schema,
    platform_schema,
    prediction_request_schema,
    prediction_schema,
)
from driftline.contracts.topics import Topics
from driftline.project import Project
from driftline.runtime.errors import BadMessageError, ConfigurationError, UnavailableError

_ATTEMPTS = 6
_FIRST_WAIT = 0.2
_NOT_FOUND = 404
_CONFLICT = 409
_COME_AGAIN = frozenset({408, 429})
#: An unknown id is asked for again after so many seconds: a flood of bad messages must not become one of requests.
_UNKNOWN_SECONDS = 10.0
_UNKNOWN_KEPT = 100_000

T = TypeVar("T")


class IncompatibleSchemaError(ConfigurationError):
    """Readers of the new schema could not read what was written with the old one."""


class UnknownSchemaError(BadMessageError):
    """A message names a schema that the registry does not know."""


class SchemaRegistry:
    """Registers and fetches schemas; what was fetched once is kept."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = SchemaRegistryClient({"url": url, "timeout": 10, "max.retries": 0})
        self._schemas: dict[int, dict[str, Any]] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._unknown_until: dict[int, float] = {}

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Register a schema under a subject with BACKWARD compatibility, and return its id.

        Raises
        ------
        IncompatibleSchemaError
            The message names the field that cannot be read any more, and why.
        UnavailableError
            The registry does not answer.
        """
        text = json.dumps(schema)
        known = self._ids.get((subject, text))
        if known is not None:
            return known
        self.check(subject, schema)
        schema_id = self._call(lambda: self._client.register_schema(subject, Schema(text, "AVRO")))
        self._call(lambda: self._client.set_compatibility(subject, level="BACKWARD"))
        self._ids[subject, text] = schema_id
        return schema_id

    def check(self, subject: str, schema: Mapping[str, Any]) -> None:
        """Raise IncompatibleSchemaError where the schema cannot follow the subject's latest one."""
        latest = self.latest(subject)
        if latest is None:
            return
        reason = explain_incompatibility(reader=schema, writer=latest)
        if reason is None and not self._accepts(subject, schema):
            reason = "the registry's own check refuses it"
        if reason is not None:
            raise IncompatibleSchemaError(f"{subject}: {reason}. {BACKWARD_ADVICE}")

    def latest(self, subject: str) -> dict[str, Any] | None:
        """Return the latest schema of a subject; None for a new subject."""
        self._client.clear_latest_caches()  # type: ignore[no-untyped-call]  # another process may have registered since
        found = self._call(lambda: self._client.get_latest_version(subject), absent=None)
        return None if found is None else _parsed(found.schema)

    def schema(self, schema_id: int) -> dict[str, Any]:
        """Return a schema by its id; raise UnknownSchemaError where the registry has none."""
        if schema_id not in self._schemas:
            unknown = UnknownSchemaError(f"the registry knows no Avro schema with id {schema_id}")
            if time.monotonic() < self._unknown_until.get(schema_id, 0.0):
                raise unknown
            found = self._call(lambda: self._client.get_schema(schema_id), absent=None)
            if found is None or found.schema_type not in {None, "AVRO"}:
                if len(self._unknown_until) >= _UNKNOWN_KEPT:
                    self._unknown_until.clear()
                self._unknown_until[schema_id] = time.monotonic() + _UNKNOWN_SECONDS
                raise unknown
            self._schemas[schema_id] = _parsed(found)
        return self._schemas[schema_id]

    def schema_id(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Return the id under which a schema is registered for a subject.

        Raises ConfigurationError where it is not registered yet.
        """
        text = json.dumps(schema)
        if (subject, text) not in self._ids:
            found = self._call(lambda: self._client.lookup_schema(subject, Schema(text, "AVRO")), absent=None)
            if found is None or found.schema_id is None:
                msg = f"{subject}: this schema is not registered; run `driftline schemas register`"
                raise ConfigurationError(msg)
            self._ids[subject, text] = found.schema_id
        return self._ids[subject, text]

    def register_project(self, project: Project, topics: Topics) -> dict[str, int]:
        """Register all schemas of a project; nothing is registered where one of them is incompatible."""
        schemas = project_topic_schemas(project, topics)
        for topic, schema in schemas.items():
            self.check(topics.subject(topic), schema)
        return {topic: self.register(topics.subject(topic), schema) for topic, schema in schemas.items()}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        """Return the registry, to be closed at the end of the block."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the connections."""
        self.close()

    def _accepts(self, subject: str, schema: Mapping[str, Any]) -> bool:
        return self._call(
            lambda: self._client.test_compatibility(subject, Schema(json.dumps(schema), "AVRO"))
        )

    def _call(self, job: Callable[[], T], **when: Any) -> T:
        """Do a call, again a few times where the registry cannot be reached; ``absent=`` is given for a 404."""
        wait = _FIRST_WAIT
        for attempt in range(_ATTEMPTS):
            try:
                return job()
            except SchemaRegistryError as error:
                if error.http_status_code == _NOT_FOUND and "absent" in when:
                    return when["absent"]  # type: ignore[no-any-return]
                if error.http_status_code == _CONFLICT:
                    raise IncompatibleSchemaError(str(error)) from error
                if error.http_status_code < 500 and error.http_status_code not in _COME_AGAIN:
                    msg = f"the schema registry at {self._url} refused: {error}"
                    raise ConfigurationError(msg) from error  # a wrong URL, schema or credential
                if attempt == _ATTEMPTS - 1:
                    raise UnavailableError(f"the schema registry at {self._url} fails: {error}") from error
            except (httpx2.HTTPError, OSError) as error:
                if attempt == _ATTEMPTS - 1:
                    raise UnavailableError(
                        f"the schema registry at {self._url} does not answer: {error}"
                    ) from error
            time.sleep(wait)
            wait *= 2
        raise AssertionError


def _parsed(schema: Schema) -> dict[str, Any]:
    text = schema.schema_str
    return dict(json.loads(text)) if text else {}


def project_topic_schemas(project: Project, topics: Topics) -> dict[str, dict[str, Any]]:
    """Return the schema of every topic of a project that carries Avro."""
    schemas = {topics.events(name): dict(event.schema) for name, event in project.event_types.items()}
    if project.models:
        schemas[topics.prediction_requests] = prediction_request_schema(project)
        schemas[topics.predictions] = prediction_schema(project)
        schemas[topics.labels] = label_schema()
        schemas[topics.outcomes] = outcome_schema(project)
        for stream, record in PLATFORM_RECORDS.items():
            schemas[topics.stream(stream)] = platform_schema(record)
    return schemas
