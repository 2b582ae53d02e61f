"""Requests over HTTP that were asked before get the answer of before. The order of things, for a UUID of the caller's:

1. Where a request with it is on its way in this process, the second waits for the first one's answer.
2. Its claim is read in the exchange that reads its features (``ReadsBesideClaims``). Where there is one, nothing is
   scored: another body is refused, the same gets the claimed record.
3. What was scored (or refused by the engine) is claimed before it is sent to the log. Where another process was first,
   its record is the answer; where the topic was, its record in the log. What FAILED is not claimed: asked again, it is
   tried again. What was answered without Redis is not claimed either, before it is given.
4. The record is sent to the log and acknowledged, its caller is answered.
5. Then the claim is marked as logged, for many requests at once (``Marks``).
6. A claim that is not marked is in doubt: another process is at 4, or ended there. It is waited for, and then looked
   for in the log; what is not there is logged (``Doubts``).

A UUID that we made is unknown to its caller until 4. So it is claimed and marked together, at 5; that it was asked over HTTP
shows by itself (``ids.is_made``).
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from driftline.contracts import prediction_fields as fields
from driftline.runtime.acknowledged_producer import Acknowledgement
from driftline.runtime.errors import BadMessageError, DriftlineError, UnavailableError
from driftline.runtime.pipelined_redis import PipelinedRedis
from driftline.serving.claimed_reads import ReadsBesideClaims
from driftline.serving.claims import Claim, Claims
from driftline.serving.kept_answers import KeptAnswers, RepeatedRecord
from services.predictor.doubts import Doubts
from services.predictor.each_anew import Batches, EachAnew, Framed, TellClaimed
from services.predictor.marks import Marks
from services.predictor.waiting import Record, WaitingRequest
from services.predictor.zero_wait_queue import call

_FAILED = fields.STATUSES[2]
_BEFORE = Acknowledgement("", -1, -1)


class _OnItsWay:
    """A request between its coming and its mark, and those that wait for the same answer."""

    __slots__ = ("answer", "followers", "leader")

    def __init__(self, leader: WaitingRequest) -> None:
        self.leader = leader
        self.followers: list[WaitingRequest] = []
        self.answer: Record | None = None


class Repeats(EachAnew):
    """Finds the answers of before, on the worker's thread and on the event loop."""

    def __init__(
        self,
        claims: Claims,
        reads: ReadsBesideClaims,
        kept: KeptAnswers,
        marks: Marks,
        doubts: Doubts,
    ) -> None:
        self._claims = claims
        self._reads = reads
        self._kept = kept
        self._marks = marks
        self._doubts = doubts
        self._lock = threading.Lock()
        self._on_their_way: dict[str, _OnItsWay] = {}
        self._batches: Batches | None = None

    def start(self, batches: Batches) -> None:
        """Start the threads of marks and doubts."""
        self._batches = batches
        self._marks.start(self._forget)
        self._doubts.start(resolve=self._found, anew=batches.again, log=batches.send_framed, fail=self._fail)

    def close(self) -> None:
        """Mark what is logged, then stop; for after the last answer."""
        self._doubts.close()
        self._marks.close()
        self._claims.close()

    def first(self, taken: Sequence[WaitingRequest]) -> Sequence[WaitingRequest]:
        """Return the requests that nobody in this process has on its way."""
        return [one for one in taken if not one.brought or self._leads(one)]

    def want(self, taken: Sequence[WaitingRequest]) -> None:
        """Have the claims of requests, of one model, read with their features."""
        self._reads.want([one.request[fields.REQUEST_ID] for one in taken if one.brought])

    def answer(
        self, taken: Sequence[WaitingRequest], claims: Mapping[str, Claim]
    ) -> Sequence[WaitingRequest]:
        """Answer those that have a claim; return the others."""
        others = []
        for one in taken:
            claim = claims.get(one.request[fields.REQUEST_ID]) if one.brought else None
            if claim is None:
                others.append(one)
            else:
                self._found(one, claim)
        return others

    def asked(self, taken: Sequence[WaitingRequest]) -> tuple[Sequence[str], Sequence[str]]:
        """Return the UUIDs that callers have brought, and the keys of their claims: for who reads them by itself (2)."""
        ids = [one.request[fields.REQUEST_ID] for one in taken if one.brought]
        return ids, [self._claims.key(one) for one in ids]

    def claim(self, framed: Sequence[Framed]) -> Sequence[Framed]:
        """Claim records that are to be logged (3); return those that nobody else has claimed."""
        wanted, values, failed = self._to_claim(framed)
        claims = self._claims.claim(wanted, values) if wanted else {}
        if failed:  # perhaps before any feature was read
            with suppress(UnavailableError):
                claims = {**claims, **self._claims.look(failed)}
        return self._left(framed, claims)

    def claim_by(self, server: PipelinedRedis, framed: Sequence[Framed], tell: TellClaimed) -> None:
        """Do as ``claim`` for records whose claims have been read, from an event loop that has a connection of its own."""
        wanted, values, _ = self._to_claim(framed)
        if not wanted:
            tell(framed)
            return

        def told(claims: dict[str, Claim] | UnavailableError) -> None:
            tell(claims if isinstance(claims, UnavailableError) else self._left(framed, claims))

        self._claims.claim_by(server, wanted, values, told)

    def _to_claim(self, framed: Sequence[Framed]) -> tuple[list[str], list[bytes], list[str]]:
        """Return the UUIDs to claim, with what, and those of records that FAILED."""
        wanted: list[str] = []
        values: list[bytes] = []
        failed: list[str] = []
        for one, record, value in framed:
            request_id = record[fields.REQUEST_ID]
            if one.refusal is not None or isinstance(value, BadMessageError):
                continue
            if record[fields.DEGRADED] is not None:
                continue  # Redis did not answer just now, and these callers do not wait for it
            if not one.brought:
                with self._lock:
                    self._on_their_way[request_id] = _OnItsWay(one)
            elif record[fields.STATUS] == _FAILED:
                failed.append(request_id)
            else:
                wanted.append(request_id)
                values.append(value)
        return wanted, values, failed

    def _left(self, framed: Sequence[Framed], claims: Mapping[str, Claim]) -> Sequence[Framed]:
        """Answer those that others have claimed; return the others."""
        if not claims:
            return framed
        left = set(map(id, self.answer([one for one, _, _ in framed], claims)))
        return [one for one in framed if id(one[0]) in left]

    def was_asked(self, one: WaitingRequest) -> bool:
        """Tell whether the UUID of a request that cannot be read has an answer; False where Redis does not say."""
        request_id = one.request[fields.REQUEST_ID]
        try:
            return one.brought and bool(self._claims.look([request_id]))
        except UnavailableError:
            return False

    def settle(
        self,
        one: WaitingRequest,
        record: Record,
        value: bytes | BadMessageError,
        failure: DriftlineError | None,
        logged: Acknowledgement | DriftlineError,
    ) -> None:
        """Tell a caller, and who waits for the same answer, what became of the record; on the event loop."""
        one.settle(record, failure, logged)
        request_id = one.request[fields.REQUEST_ID]
        answers = (
            failure is None
            and isinstance(value, bytes)
            and one.refusal is None
            and record[fields.STATUS] != _FAILED
        )
        if answers and isinstance(logged, Acknowledgement):
            told: Record = RepeatedRecord(record)
            followers = self._take_followers(request_id, one, told)
            claimed = not one.brought or record[fields.DEGRADED] is None
            mark = self._marks.logged if claimed else self._marks.logged_unclaimed
            mark(request_id, value)  # type: ignore[arg-type]
        else:
            told = record
            followers = self._take_followers(request_id, one, None)
            if answers and isinstance(logged, UnavailableError):
                self._marks.unsure(request_id, value)  # type: ignore[arg-type]
            elif answers:
                self._marks.unsent(request_id)
        for follower in followers:
            call(follower.loop, partial(follower.settle, told, failure, logged))

    def _leads(self, one: WaitingRequest) -> bool:
        """Tell whether a request is the first of its UUID here; a later one is answered, or waits (1)."""
        request_id = one.request[fields.REQUEST_ID]
        with self._lock:
            found = self._on_their_way.setdefault(request_id, _OnItsWay(one))
            if found.leader is one:
                return True
            one.sent = True
            other = self._kept.differences(found.leader.request, one.request)
            if not other and found.answer is None:
                found.followers.append(one)
                return False
        if other:
            self._refuse_other(one, other)
        else:
            assert found.answer is not None  # noqa: S101
            call(one.loop, partial(one.settle, found.answer, None, _BEFORE))
        return False

    def _found(self, one: WaitingRequest, claim: Claim) -> None:
        """Settle a request whose UUID was claimed before (2, 3)."""
        one.sent = True
        if claim.on_topic:
            self._doubts.add(one, None)
            return
        try:
            record = self._kept.read(claim.value)
        except UnavailableError as error:
            self._fail(one, error)
            return
        other = self._kept.differences(record, one.request)
        if other:
            followers = self._take_followers(one.request[fields.REQUEST_ID], one, None)
            for other_one in (one, *followers):
                self._refuse_other(other_one, other)
        elif claim.logged:
            followers = self._take_followers(one.request[fields.REQUEST_ID], one, None)
            for same in (one, *followers):
                call(same.loop, partial(same.settle, record, None, _BEFORE))
        else:
            self._doubts.add(one, record)

    def _refuse_other(self, one: WaitingRequest, names: Sequence[str]) -> None:
        assert self._batches is not None  # noqa: S101
        reason = (
            f"request_id {one.request[fields.REQUEST_ID]} was asked before with another {', '.join(names)}; a UUID names "
            "one request, so give this one its own"
        )
        self._batches.refuse_other(one, reason)

    def _fail(self, one: WaitingRequest, error: DriftlineError) -> None:
        """Tell a caller that its answer of before cannot be had now. It has one, so nothing is logged."""
        followers = self._take_followers(one.request[fields.REQUEST_ID], one, None)
        for same in (one, *followers):
            call(same.loop, partial(same.settle, {}, error, error))

    def _take_followers(
        self, request_id: str, leader: WaitingRequest, answer: Record | None
    ) -> Sequence[WaitingRequest]:
        """Return who waits for a leader's answer. Who comes later finds it, until it is marked; else leads anew."""
        with self._lock:
            found = self._on_their_way.get(request_id)
            if found is None or found.leader is not leader:
                return ()
            found.answer = answer
            if answer is None:
                del self._on_their_way[request_id]
            followers, found.followers = found.followers, []
            return followers

    def _forget(self, request_ids: Sequence[str]) -> None:
        """Let go of requests whose claims are marked."""
        with self._lock:
            for request_id in request_ids:
                self._on_their_way.pop(request_id, None)
