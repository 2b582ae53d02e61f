"""Requests of the topic that were asked before are dropped: their answer is in the log, or comes there by its first asker.

1. Each message is noted under its UUID with its place, before it is scored; the first place that is noted answers.
2. A message that finds its own place was noted in a batch that was not committed: it is scored. So a kill between 1 and
   the commit loses nothing, and the transaction answers it once.
3. One that finds another place is dropped: the message there was answered, or will be, by 2.
4. One that HTTP has answered is dropped: its UUID is noted, or is one that a predictor has made for a caller without one
   (``are_made``), and its claim tells. HTTP may be about to answer it, or have died before: it is waited for, and then
   looked for in the log. What is not there is taken over.
5. What FAILED is forgotten before the commit: asked again, it is tried again.
"""

import time
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Message
from numpy.typing import NDArray

from driftline.contracts import prediction_fields as fields
from driftline.runtime import metrics
from driftline.runtime.errors import UnavailableError
from driftline.runtime.ids import are_made
from driftline.serving.claims import OVER_HTTP, PLACE_BYTES, Claim, Claims
from driftline.serving.logged_answers import LoggedAnswers
from driftline.serving.raw_ids import raw_ids
from services.predictor.doubts import find_claimed

TOPIC = fields.CHANNELS[1]
_FAILED = fields.STATUSES[2]
_POLL_SECONDS = 0.01
_PATIENCE_SECONDS = 1.0
_PLACES = np.dtype([("partition", ">u4"), ("offset", ">u8")])


class TopicRepeats:
    """Tells new requests of the topic from repeated ones.

    Parameters
    ----------
    delivery_seconds
        How long a record of HTTP may take into the log at most.
    """

    def __init__(self, claims: Claims, log: LoggedAnswers, *, delivery_seconds: float) -> None:
        self._claims = claims
        self._log = log
        self._delivery_seconds = delivery_seconds

    def drop(self, requests: pa.RecordBatch, messages: Sequence[Message]) -> pa.RecordBatch:
        """Return the requests that are new; ``messages`` are those that they came in.

        Raises
        ------
        UnavailableError
            Redis does not say, or HTTP is just answering one: the batch comes again.
        """
        ids = requests.column(fields.REQUEST_ID)
        rows, found = raw_ids(ids)
        raw, places = found.tobytes(), _places(messages, rows)
        others = self._claims.first(raw, places)  # (1)
        made = [number for number in np.flatnonzero(are_made(raw)).tolist() if number not in others]
        if not others and not made:
            return requests
        new = np.ones(len(ids), np.bool_)
        new[rows[[*others, *made]]] = False  # (3)
        over_http = [number for number, place in others.items() if place == OVER_HTTP] + made
        numbers = {ids[rows[number]].as_py().lower(): number for number in over_http}
        unanswered = self._not_answered(numbers)
        if unanswered:
            taken = [numbers[one] for one in unanswered]
            self._claims.take(
                [found[number].tobytes() for number in taken],
                [places[number * PLACE_BYTES : (number + 1) * PLACE_BYTES] for number in taken],
            )
            self._claims.drop(unanswered)
            new[rows[taken]] = True
        metrics.PREDICTIONS_REPEATED.labels(TOPIC).inc(int((~new).sum()))
        return requests.filter(pa.array(new))

    def release_failed(self, predictions: pa.RecordBatch) -> None:
        """Forget requests that could not be answered (5); raise UnavailableError where Redis does not answer."""
        failed = predictions.filter(pc.equal(predictions.column(fields.STATUS), _FAILED))
        if len(failed):
            _, raw = raw_ids(failed.column(fields.REQUEST_ID))
            if len(raw):
                self._claims.release([one.tobytes() for one in raw])

    def close(self) -> None:
        """Close the connections."""
        self._claims.close()
        self._log.close()

    def _not_answered(self, asked: Iterable[str]) -> list[str]:
        """Return those of some requests of HTTP that nobody answers (4)."""
        left, unanswered = list(asked), []
        until = time.monotonic() + _PATIENCE_SECONDS
        while left:
            claims = self._claims.look(left)
            for request_id in tuple(left):
                claim = claims.get(request_id)
                if claim is not None and not claim.logged:
                    claim = self._settled(request_id, claim)
                    if claim is None:
                        continue
                left.remove(request_id)
                if claim is None or not claim.logged:
                    unanswered.append(request_id)
            if left and time.monotonic() > until:
                raise UnavailableError(f"request {left[0]} is just being answered over HTTP")
            if left:
                time.sleep(_POLL_SECONDS)
        return unanswered

    def _settled(self, request_id: str, claim: Claim) -> Claim | None:
        """Return a claim as the log has it, or has not; None while its process may be about to log it."""
        if self._claims.take_over(request_id, older_than_seconds=self._delivery_seconds):
            return find_claimed(self._claims, self._log, request_id, claim)
        return None


def _places(messages: Sequence[Message], rows: NDArray[np.intp]) -> bytes:
    """Return the places of some rows' messages, side by side, as ``claims.place_of`` packs one."""
    places = np.empty(len(messages), _PLACES)
    places["partition"] = np.fromiter(map(Message.partition, messages), np.uint32, len(messages))
    places["offset"] = np.fromiter(map(Message.offset, messages), np.uint64, len(messages))
    return places[rows].tobytes()
