"""What callers send, checked field by field, and the request that it means.

A wrong body is a refusal, and a refusal is logged: so reading a body never fails. It gives the request as far
as it can be read, and what is wrong with it.

Nearly all bodies are right, so ``GoodBodies`` reads those in one step and knows nothing of any other.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from driftline.contracts import prediction_fields as fields
from driftline.project import InputField, InputType, ModelDeclaration, Project
from driftline.runtime.ids import made_id
from driftline.serving.request_values import (
    MAX_CALLER,
    MAX_KEY,
    MAX_TEXT,
    WrongValueError,
    read_instant,
    read_number,
    read_request_id,
    read_text,
)

ENTITIES = "entities"
INPUTS = "inputs"
_KNOWN = (fields.REQUEST_ID, fields.EVENT_TIME, fields.CALLER, ENTITIES, INPUTS)

_MAX_MODEL = 200

#: Of how long a caller waits, in milliseconds; the service's own deadline holds as well.
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
MAX_TIMEOUT_MS = 600_000

#: A field's path in the body, and what is wrong with it.
Mistake = tuple[tuple[str, ...], str]


class ReadRequest(NamedTuple):
    """A request as the log's columns hold it (times in microseconds, UTC), and the mistakes in its body.

    ``brought`` says whether its UUID is the caller's; else it was made.
    """

    record: dict[str, Any]
    brought: bool
    mistakes: tuple[Mistake, ...] = ()

    @property
    def id(self) -> str:
        """The request's UUID: the caller's, or one that was made."""
        return str(self.record[fields.REQUEST_ID])


def read_request(project: Project, model: str, body: Any, now_us: int) -> ReadRequest:
    """Return the request that a JSON body means, with everything that is wrong with it."""
    reading = _Reading(body)
    declaration = project.models.get(model)
    brought = reading.take(fields.REQUEST_ID, read_request_id)
    record = {
        fields.REQUEST_ID: brought or made_id(),
        fields.MODEL: model[:_MAX_MODEL],
        fields.REQUESTED_AT: now_us,
        fields.EVENT_TIME: reading.take(fields.EVENT_TIME, read_instant, otherwise=now_us),
        fields.CALLER: reading.take(fields.CALLER, lambda value: read_text(value, MAX_CALLER)),
    }
    record.update(dict.fromkeys(project.request_entities))
    record.update(dict.fromkeys(one.name for one in project.request_inputs))
    record.update(reading.entities(declaration))
    record.update(reading.inputs(declaration))
    reading.refuse_unknown(_KNOWN)
    return ReadRequest(record=record, mistakes=tuple(reading.mistakes), brought=brought is not None)


class GoodBodies:
    """Reads the bodies of requests to one model that have no mistake: JSON is decoded and checked in one step.

    Whatever it returns, ``read_request`` returns as well; for all else it returns None.
    """

    def __init__(self, project: Project, declaration: ModelDeclaration) -> None:
        self._model = declaration.name
        keys = tuple(dict.fromkeys(declaration.entity_keys))
        given = (*keys, *(one.name for one in declaration.inputs))
        others = {*project.request_entities, *(one.name for one in project.request_inputs)} - set(given)
        self._names = (*fields.REQUEST_HEADER, *given, *sorted(others))
        self._no_others = (None,) * len(others)
        self._no_entities = (None,) * len(keys)
        self._no_inputs = (None,) * len(declaration.inputs)
        entities = _struct("Entities", {name: _limited(MAX_KEY) for name in keys})
        inputs = _struct(
            "Inputs",
            {
                one.name: float if one.type is InputType.DOUBLE else _limited(MAX_TEXT)
                for one in declaration.inputs
            },
        )
        named = {
            fields.REQUEST_ID: str,
            fields.EVENT_TIME: int | str,
            fields.CALLER: _limited(MAX_CALLER),
            ENTITIES: entities,
            INPUTS: inputs,
        }
        self._decode = msgspec.json.Decoder(_struct("Body", named)).decode

    def read(self, body: bytes, now_us: int) -> ReadRequest | None:
        """Return the request that a body means; None where anything is wrong with it."""
        try:
            request_id, event_time, caller, entities, inputs = _values(self._decode(body))
            brought = request_id is not None
            values = (
                read_request_id(request_id) if brought else made_id(),
                self._model,
                now_us,
                now_us if event_time is None else read_instant(event_time),
                caller,
                *(self._no_entities if entities is None else _values(entities)),
                *(self._no_inputs if inputs is None else _values(inputs)),
                *self._no_others,
            )
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return ReadRequest(dict(zip(self._names, values, strict=True)), brought)


_values = msgspec.structs.astuple


def _limited(longest: int) -> Any:
    return Annotated[str, msgspec.Meta(max_length=longest)]


def _struct(name: str, types: Mapping[str, Any]) -> Any:
    """Return a type with optional, nullable fields and no others. The fields' names may be Python's keywords."""
    places = [f"field_{place}" for place in range(len(types))]
    return msgspec.defstruct(
        name,
        [(place, kind | None, None) for place, kind in zip(places, types.values(), strict=True)],
        rename=dict(zip(places, types, strict=True)),
        forbid_unknown_fields=True,
    )


class _Reading:
    """Takes a body apart and gathers what is wrong with it."""

    def __init__(self, body: Any) -> None:
        self.mistakes: list[Mistake] = []
        self._body: dict[str, Any] = {}
        if isinstance(body, dict):
            self._body = body
        else:
            self.mistakes.append((("body",), "an object is wanted"))

    def take(self, name: str, read: Callable[[Any], Any], otherwise: Any = None) -> Any:
        """Return a field as it reads; ``otherwise`` where it is absent, null or wrong."""
        return self._read((name,), self._body.get(name), read, otherwise)

    def entities(self, declaration: ModelDeclaration | None) -> dict[str, str]:
        """Return the keys of the model's entities. What is missing is the engine's to refuse."""
        known = {} if declaration is None else dict.fromkeys(declaration.entity_keys)
        given = self._named(ENTITIES, known, declaration)
        read = {
            name: self._read((ENTITIES, name), value, lambda value: read_text(value, MAX_KEY))
            for name, value in given.items()
        }
        return {name: key for name, key in read.items() if key is not None}

    def inputs(self, declaration: ModelDeclaration | None) -> dict[str, float | str]:
        """Return the model's inputs that were given."""
        known = {} if declaration is None else {one.name: one for one in declaration.inputs}
        given = self._named(INPUTS, known, declaration)
        read = {
            name: self._read((INPUTS, name), value, _reader_of(known[name])) for name, value in given.items()
        }
        return {name: value for name, value in read.items() if value is not None}

    def refuse_unknown(self, known: tuple[str, ...]) -> None:
        """Note the body's fields that mean nothing: a misspelt one would be ignored in silence."""
        for name in self._body.keys() - set(known):
            self.mistakes.append(((name,), f"no such field; known are {', '.join(known)}"))

    def _named(
        self, field: str, known: Mapping[str, Any], declaration: ModelDeclaration | None
    ) -> dict[str, Any]:
        given = self._body.get(field)
        if given is None:
            return {}
        if not isinstance(given, dict):
            self.mistakes.append(((field,), "an object of names and values is wanted"))
            return {}
        if declaration is not None:  # else the engine says that there is no such model
            for name in given.keys() - known.keys():
                takes = ", ".join(sorted(known)) or "none"
                self.mistakes.append(
                    ((field, name), f"{declaration.name} takes no such name; known are {takes}")
                )
        return {name: value for name, value in given.items() if name in known}

    def _read(
        self, path: tuple[str, ...], value: Any, read: Callable[[Any], Any], otherwise: Any = None
    ) -> Any:
        if value is None:
            return otherwise
        try:
            return read(value)
        except WrongValueError as error:
            self.mistakes.append((path, str(error)))
            return otherwise


def _reader_of(field: InputField) -> Callable[[Any], Any]:
    return read_number if field.type is InputType.DOUBLE else lambda value: read_text(value, MAX_TEXT)


def read_timeout_ms(text: str | None) -> int | None:
    """Return how long a caller says that it waits; raise WrongValueError for what is no such number.

    >>> read_timeout_ms("250"), read_timeout_ms(None)
    (250, None)
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 0 < int(text) <= MAX_TIMEOUT_MS):
        raise WrongValueError(f"whole milliseconds from 1 to {MAX_TIMEOUT_MS:,} are wanted")
    return int(text)
