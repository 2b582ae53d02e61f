"""Many rows in one call: each is answered and logged as if it had come alone."""

import json
from typing import Any

import httpx
import pytest

from driftline.contracts.batch_codec import BatchEncoder
from driftline.runtime.errors import BadMessageError
from driftline.runtime.ids import new_id
from tests.unit.predictor.harness import GOOD, PATH, Service

BULK = f"{PATH}/bulk"
_ROWS: list[Any] = [
    GOOD,
    {**GOOD, "entities": {"customer": "c1"}},
    {**GOOD, "inputs": {"colour": 1}},
    7,
    {**GOOD, "event_time": "soon"},
]


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson"])
def test_each_row_is_answered_in_order_as_if_it_had_come_alone(service: Service, form: str) -> None:
    rows = [{**row, "request_id": new_id()} if isinstance(row, dict) else row for row in _ROWS * 80]
    written = [json.dumps(row) for row in rows]
    content = f"[{', '.join(written)}]" if form == "application/json" else "\r\n\n".join(written)
    headers = {"content-type": form}
    service.batches._waiting._max_waiting = 1_000
    told = lines(service.run(lambda client: client.post(BULK, content=content, headers=headers)))
    alone = [service.ask(row).json() for row in rows[:5]]
    assert [one["status"] for one in told] == ["ANSWERED", 422, 422, 422, 422] * 80
    for row, one in zip(rows, told, strict=True):
        assert not isinstance(row, dict) or one["request_id"] == row["request_id"]
    for one, other in zip(told, alone, strict=False):
        assert {**one, "request_id": ""} == {**other, "request_id": ""}
    logged = {one["request_id"]: one["status"] for one in service.logged[:400]}
    assert logged == {one["request_id"]: "ANSWERED" if "score" in one else "REFUSED" for one in told}
    assert max(service.store.rows) > 1


def test_a_line_that_is_no_json_is_refused_alone(service: Service) -> None:
    content = f"{json.dumps(GOOD)}\n{{\n{json.dumps(GOOD)}"
    headers = {"content-type": "application/x-ndjson"}
    told = lines(service.run(lambda client: client.post(BULK, content=content, headers=headers)))
    assert [one["status"] for one in told] == ["ANSWERED", 400, "ANSWERED"]
    assert sorted(one["status"] for one in service.logged) == ["ANSWERED", "ANSWERED", "REFUSED"]


def test_rows_that_find_the_queue_full_say_so_and_the_others_are_answered(service: Service) -> None:
    answer = service.run(lambda client: client.post(BULK, json=[GOOD] * 50))
    told = [one["status"] for one in lines(answer)]
    assert told.count("ANSWERED") == len(service.logged) >= 8
    assert told.count(429) == 50 - told.count("ANSWERED") > 0


@pytest.mark.parametrize(
    ("content", "form", "status"),
    [
        (b"{}", "application/json", 400),
        (b"[1", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[]", "text/plain", 415),
        (b"[" + b"1," * 10_000 + b"1]", "application/json", 413),
    ],
)
def test_a_call_that_is_no_rows_is_refused_whole_and_logged(
    service: Service, content: bytes, form: str, status: int
) -> None:
    headers = {"content-type": form}
    answer = service.run(lambda client: client.post(BULK, content=content, headers=headers))
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert [one["status"] for one in service.logged] == ["REFUSED"]


def test_no_rows_give_no_lines(service: Service) -> None:
    assert lines(service.run(lambda client: client.post(BULK, json=[]))) == []
    assert service.logged == []


def test_a_record_that_does_not_fit_the_log_spoils_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = BatchEncoder.encode_records

    def spoilt(self: BatchEncoder, records: list[dict[str, Any]]) -> list[bytes | BadMessageError]:
        return encode(self, [{**one, "amount": "much"} if one["amount"] == 13 else one for one in records])

    monkeypatch.setattr(BatchEncoder, "encode_records", spoilt)
    rows = [{**GOOD, "inputs": {"amount": amount}} for amount in (12, 13, 14)]
    told = lines(service.run(lambda client: client.post(BULK, json=rows)))
    assert [one["status"] for one in told] == ["ANSWERED", 422, "ANSWERED"]
    assert [one["amount"] for one in service.logged] == [12, 14]
