"""From a list of events to their results: validate each, send the valid ones, wait for every acknowledgement."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Acknowledgement
from driftline.runtime.errors import BackpressureError, BadMessageError, DriftlineError, UnavailableError
from driftline.runtime.metrics import EVENTS_ACCEPTED, EVENTS_REJECTED
from services.ingest.event_channel import EventChannel

Status = Literal["accepted", "rejected", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventResult:
    """What became of one event. ``unknown``: the broker did not say; send it again with this ``event_id``."""

    event_id: str | None
    status: Status
    error: str | None = None
    partition: int | None = None
    offset: int | None = None

    def shown(self) -> dict[str, Any]:
        """Return the result as JSON shows it, without what does not apply."""
        return {
            name: value for name, value in asdict(self).items() if value is not None or name == "event_id"
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The results in the events' order, and what kept the broker from taking all valid ones."""

    results: Sequence[EventResult]
    failure: DriftlineError | None

    def count(self, status: Status) -> int:
        """Return how many events ended so."""
        return sum(result.status == status for result in self.results)


async def publish(producer: AcknowledgedProducer, channel: EventChannel, events: Sequence[Any]) -> Outcome:
    """Publish events of one type; a wrong one does not keep its neighbours.

    Raises
    ------
    BackpressureError
        Before anything is sent, where there is no room for all.
    """
    if len(events) > producer.room:
        raise BackpressureError(f"{producer.in_flight} events wait for the broker, come again")
    pending: list[EventResult | tuple[str, asyncio.Future[Acknowledgement]]] = []
    failure: DriftlineError | None = None
    for event in events:
        try:
            ready = channel.prepare(event)
        except BadMessageError as error:
            pending.append(
                EventResult(event_id=_shown_id(channel, event), status="rejected", error=error.reason)
            )
            continue
        if failure is not None:
            pending.append(EventResult(event_id=ready.event_id, status="unknown", error=str(failure)))
            continue
        try:
            sent = producer.send(channel.topic, ready.key, ready.value)
        except (BackpressureError, UnavailableError) as error:
            failure = error
            pending.append(EventResult(event_id=ready.event_id, status="unknown", error=str(failure)))
        except BadMessageError as error:
            pending.append(EventResult(event_id=ready.event_id, status="rejected", error=error.reason))
        else:
            pending.append((ready.event_id, sent))
    results = []
    for item in pending:
        if isinstance(item, EventResult):
            results.append(item)
            continue
        event_id, sent = item
        try:
            written = await sent
        except BadMessageError as error:
            results.append(EventResult(event_id=event_id, status="rejected", error=error.reason))
        except DriftlineError as error:
            failure = failure or error
            results.append(EventResult(event_id=event_id, status="unknown", error=str(error)))
        else:
            results.append(
                EventResult(
                    event_id=event_id, status="accepted", partition=written.partition, offset=written.offset
                )
            )
    outcome = Outcome(results=results, failure=failure)
    EVENTS_ACCEPTED.labels(channel.event_type.name).inc(outcome.count("accepted"))
    EVENTS_REJECTED.labels(channel.event_type.name).inc(outcome.count("rejected"))
    return outcome


def _shown_id(channel: EventChannel, event: Any) -> str | None:
    given = event.get(channel.event_type.event_id) if isinstance(event, dict) else None
    return given[:100] if isinstance(given, str) else None
