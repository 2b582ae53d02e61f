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
    producer.check_room(len(events))
    sendings = _send_all(producer, channel, events)
    try:
        results = [await _settled(sending) for sending in sendings]
    finally:  # a deadline ends the wait: nobody asks for the rest any more
        for sending in sendings:
            sending.abandon()
    outcome = Outcome(
        results=results, failure=next((sending.failure for sending in sendings if sending.failure), None)
    )
    EVENTS_ACCEPTED.labels(channel.event_type.name).inc(outcome.count("accepted"))
    EVENTS_REJECTED.labels(channel.event_type.name).inc(outcome.count("rejected"))
    return outcome


@dataclass(slots=True, kw_only=True)
class _Sending:
    """An event on its way: refused already, not sent for a failure, or waiting for its acknowledgement."""

    event_id: str | None
    rejection: BadMessageError | None = None
    failure: DriftlineError | None = None
    acknowledged: asyncio.Future[Acknowledgement] | None = None

    def abandon(self) -> None:
        if (
            self.acknowledged is not None
            and not self.acknowledged.cancel()
            and not self.acknowledged.cancelled()
        ):
            self.acknowledged.exception()  # seen, so that asyncio does not report it as forgotten


def _send_all(producer: AcknowledgedProducer, channel: EventChannel, events: Sequence[Any]) -> list[_Sending]:
    sendings: list[_Sending] = []
    failure: DriftlineError | None = None
    for event in events:
        try:
            ready = channel.prepare(event)
        except BadMessageError as error:
            sendings.append(_Sending(event_id=_shown_id(channel, event), rejection=error))
            continue
        sending = _Sending(event_id=ready.event_id, failure=failure)
        sendings.append(sending)
        if failure is not None:  # after one failure nothing more is sent, so that the order stays
            continue
        try:
            sending.acknowledged = producer.send(channel.topic, ready.key, ready.value)
        except BadMessageError as error:
            sending.rejection = error
        except (BackpressureError, UnavailableError) as error:
            sending.failure = failure = error
    return sendings


async def _settled(sending: _Sending) -> EventResult:
    event_id = sending.event_id
    if sending.acknowledged is not None:
        try:
            written = await sending.acknowledged
        except BadMessageError as error:
            sending.rejection = error
        except DriftlineError as error:
            sending.failure = error
        else:
            return EventResult(
                event_id=event_id, status="accepted", partition=written.partition, offset=written.offset
            )
    if sending.rejection is not None:
        return EventResult(event_id=event_id, status="rejected", error=sending.rejection.reason)
    return EventResult(event_id=event_id, status="unknown", error=str(sending.failure))


def _shown_id(channel: EventChannel, event: Any) -> str | None:
    given = event.get(channel.event_type.event_id) if isinstance(event, dict) else None
    return given[:100] if isinstance(given, str) else None
