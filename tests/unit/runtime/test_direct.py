"""Direct routes: answered without the application, and whatever is not plain comes to it as it was sent."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from starlette.responses import Response

from driftline.runtime import http
from driftline.runtime.direct import DirectRequest, DirectRoute, RequestHead
from driftline.runtime.health import Health
from driftline.runtime.http import Application, BackgroundServer, create_app
from tests.serving import Answer, exchange, fetch, read_answers, request_bytes, served

ROUTE = "/direct"


@dataclass
class Echo:
    """A direct route that answers with the body, or leaves it, or waits; and the application's route beside it."""

    held: list[DirectRequest] = field(default_factory=list)
    taken: threading.Event = field(default_factory=threading.Event)
    loop: asyncio.AbstractEventLoop | None = None

    def find(self, method: bytes, target: bytes) -> DirectRoute | None:
        direct = method == b"POST" and target == ROUTE.encode()
        return DirectRoute(ROUTE, "POST", self.take) if direct else None

    def take(self, request: DirectRequest) -> bool:
        body = request.body
        if body.startswith(b"leave"):
            return False
        if body.startswith(b"fail"):
            raise ZeroDivisionError
        if body.startswith(b"hold"):
            self.loop = asyncio.get_running_loop()
            self.held.append(request)
            self.taken.set()
        elif body.startswith(b"later"):
            asyncio.get_running_loop().call_later(0.02, request.answer_json, b'"direct ' + body + b'"')
        else:
            request.answer_json(b'"direct ' + body + b'"', b"x-way: direct\r\n")
        return True

    def application(self, **limits: float) -> Application:
        app = create_app(title="test", service="test", health=Health("test", "test-0"), **limits)  # type: ignore[arg-type]
        app.direct.finders.append(self.find)

        @app.post(ROUTE)
        async def by_the_application(request: Request) -> Response:
            return Response(b'"routed ' + await request.body() + b'"', media_type="application/json")

        return app

    def release(self, number: int, body: bytes) -> None:
        """Answer what is held."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.held[number].answer_json, body)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(Echo().application(max_body_bytes=1_000)) as port:
        yield port


def post(body: bytes, *lines: bytes) -> bytes:
    return request_bytes("POST", ROUTE.encode(), *lines, body=body)


def in_flight() -> float:
    return REGISTRY.get_sample_value("driftline_http_in_flight") or 0.0


def test_a_direct_answer_is_whole(port: int) -> None:
    answer = fetch(port, "POST", ROUTE.encode(), body=b"x")
    assert answer == Answer(
        200,
        [("content-length", "10"), ("content-type", "application/json"), ("x-way", "direct")],
        b'"direct x"',
    )


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (post(b"leave it"), b'"routed leave it"'),
        (post(b"x", b"expect: 100-continue"), b'"routed x"'),
        (post(b"x").replace(b"HTTP/1.1", b"HTTP/1.0"), b'"routed x"'),
        (post(b"x").replace(b"/direct", b"/direct?a=1"), b'"routed x"'),
        (post(b"x", b"connection: upgrade", b"upgrade: h2c"), b'"routed'),
        (post(b"l" * 1_001), b"a body may have 1,000 bytes"),
    ],
)
def test_what_is_not_plain_goes_to_the_application(port: int, request_: bytes, said: bytes) -> None:
    answer = exchange(port, [request_], ["POST"])[0]
    assert said in answer.body
    assert not answer.body.startswith(b'"direct')


def test_a_body_in_pieces_is_waited_for_a_moment(port: int) -> None:
    whole = post(b"abc")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for piece in (whole[:40], whole[40:-2], whole[-2:]):
            connection.sendall(piece)
            time.sleep(0.02)
        assert read_answers(connection, ["POST"])[0].body == b'"direct abc"'


def test_a_body_in_very_many_pieces_is_whole(port: int) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % letter for letter in b"a" * 999) + b"0\r\n\r\n"
    sent = request_bytes("POST", ROUTE.encode(), b"transfer-encoding: chunked") + chunks
    assert exchange(port, [sent], ["POST"])[0].body == b'"direct ' + b"a" * 999 + b'"'


def test_a_body_that_is_declared_too_large_is_refused_before_it_comes(port: int) -> None:
    head = request_bytes("POST", ROUTE.encode(), b"content-length: 1001")
    assert exchange(port, [head], ["POST"])[0].status == 413


def test_a_body_that_takes_longer_is_the_applications() -> None:
    with (
        served(Echo().application(deadline_seconds=0.6)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(post(b"abc")[:-1])
        time.sleep(0.4)
        connection.sendall(b"c")
        assert read_answers(connection, ["POST"])[0].body == b'"routed abc"'
        connection.sendall(post(b"abc")[:-1])
        answer = read_answers(connection, ["POST"])[0]
        assert (answer.status, b"the body did not arrive" in answer.body) == (408, True)


@given(
    st.lists(
        st.sampled_from([b"a", b"later b", b"leave c", b"later d", b"fine", b"l" * 300]),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 400),
)
def test_many_requests_over_one_connection_are_answered_in_order(
    port: int, bodies: list[bytes], cut: int
) -> None:
    sent = b"".join(post(body) for body in bodies)
    pieces = [sent[start : start + cut] for start in range(0, len(sent), cut)]
    answers = exchange(port, pieces, ["POST"] * len(bodies))
    assert [answer.status for answer in answers] == [200] * len(bodies)
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.body.split(b" ", 1)[1] == body + b'"'


CHUNKED = request_bytes("POST", ROUTE.encode(), b"transfer-encoding: chunked") + b"1\r\na\r\n0\r\n\r\n"
ONE_BY_ONE = [
    (post(b"fine1"), b'"direct fine1"'),
    (post(b"later"), b'"direct later"'),
    (post(b"leave"), b'"routed leave"'),  # a head like those before
    (post(b"other", b"x-one: 1"), b'"direct other"'),
    (post(b"a\r\n\r\n"), b'"direct a\r\n\r\n"'),
    (request_bytes("POST", ROUTE.encode()), b'"direct "'),
    (post(b"g", b"expect: 100-continue"), b'"routed g"'),
    (CHUNKED, b'"direct a"'),
]


@given(st.lists(st.tuples(st.sampled_from(ONE_BY_ONE), st.booleans()), min_size=1, max_size=8))
def test_a_head_that_came_before_means_the_same_in_one_piece_and_in_two(
    port: int, asked: list[tuple[tuple[bytes, bytes], bool]]
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for (sent, body), whole in asked:
            for piece in [sent] if whole else [sent[:30], sent[30:]]:
                connection.sendall(piece)
            assert read_answers(connection, ["POST"])[0].body == body


def test_a_head_is_kept_that_was_answered_directly() -> None:
    app = Echo().application()
    with served(app) as port:
        for body in (b"leave", b"x", b"y", b"zz"):
            fetch(port, "POST", ROUTE.encode(), body=body)
    kept = [head.body_bytes for head in app.direct.known_heads.values()]
    assert kept == [1, 2]


def test_known_heads_are_few_and_short() -> None:
    routes = Echo().application().direct
    head = RequestHead(DirectRoute(ROUTE, "POST", lambda _: True), ROUTE.encode(), (), 0)
    for number in range(10_000):
        routes.remember(b"%d" % number, head)
    routes.remember(b"x" * 100_000, head)
    assert len(routes.known_heads) <= 256
    assert b"x" * 100_000 not in routes.known_heads


def test_who_wants_the_connection_closed_gets_it_closed(port: int) -> None:
    for _ in range(2):  # the second head is known
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(post(b"x", b"connection: close"))
            said = b"".join(iter(lambda: connection.recv(1_000), b""))
        assert b"connection: close\r\n" in said
        assert said.endswith(b'"direct x"')


def test_a_fault_is_told_and_closes(port: int) -> None:
    before = in_flight()
    answer = fetch(port, "POST", ROUTE.encode(), body=b"fail")
    assert answer.status == 500
    assert b"ZeroDivisionError" in answer.body
    assert ("connection", "close") in answer.headers
    assert in_flight() == before


def test_an_answer_that_comes_too_late_is_not_sent() -> None:
    echo = Echo()
    with (
        served(echo.application(deadline_seconds=0.2)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(post(b"hold"))
        late = read_answers(connection, ["POST"])[0]
        echo.release(0, b'"too late"')
        connection.sendall(post(b"next"))
        assert read_answers(connection, ["POST"])[0].body == b'"direct next"'
    assert late.status == 503
    assert b"no answer within 0.2 s" in late.body
    assert ("retry-after", "1") in late.headers


def test_too_many_at_once_are_the_applications_to_refuse() -> None:
    echo = Echo()
    with (
        served(echo.application(max_in_flight=1)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(post(b"hold"))
        assert echo.taken.wait(20)
        refused = fetch(port, "POST", ROUTE.encode(), body=b"x")
        echo.release(0, b"1")
        assert read_answers(connection, ["POST"])[0].body == b"1"
        assert (refused.status, b"too many requests" in refused.body) == (503, True)
        assert fetch(port, "POST", ROUTE.encode(), body=b"x").body == b'"direct x"'


def test_who_goes_away_is_forgotten() -> None:
    echo, before = Echo(), in_flight()
    with served(echo.application()) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(post(b"hold"))
            assert echo.taken.wait(20)
            assert in_flight() == before + 1
            assert echo.held[0].waits()
        while echo.held[0].waits():
            time.sleep(0.005)
        assert in_flight() == before
        echo.release(0, b"1")
        assert fetch(port, "POST", ROUTE.encode(), body=b"x").status == 200
    assert in_flight() == before


def test_who_goes_away_with_more_requests_behind_is_not_written_to(caplog: pytest.LogCaptureFixture) -> None:
    echo, before = Echo(), in_flight()
    with served(echo.application()) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(post(b"hold") + post(b"next"))
            assert echo.taken.wait(20)
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # close at once
        time.sleep(0.1)
        echo.release(0, b"1")
        assert fetch(port, "POST", ROUTE.encode(), body=b"x").status == 200
    assert in_flight() == before
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_stop_waits_for_what_is_under_way() -> None:
    echo = Echo()
    server = BackgroundServer(echo.application())
    port = server.start()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as asking,
        socket.create_connection(("127.0.0.1", port), timeout=20) as coming,
    ):
        asking.sendall(post(b"hold"))
        coming.sendall(post(b"abc")[:-1])
        assert echo.taken.wait(20)
        time.sleep(0.05)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(0.3)
        coming.sendall(b"c")
        assert read_answers(coming, ["POST"])[0].body == b'"routed abc"'
        echo.release(0, b"1")
        answer = read_answers(asking, ["POST"])[0]
        assert (answer.body, ("connection", "close") in answer.headers) == (b"1", True)
        stopping.join(20)
    assert not stopping.is_alive()


@pytest.mark.parametrize("left", [b"", b"leave"], ids=["direct", "by the application"])
def test_an_idle_connection_is_closed_and_a_used_one_is_not(
    monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    monkeypatch.setattr(http, "_KEEP_ALIVE_SECONDS", 2)
    echo = Echo()
    with (
        served(echo.application()) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as used,
        socket.create_connection(("127.0.0.1", port), timeout=20) as waits,
        socket.create_connection(("127.0.0.1", port), timeout=20) as idle,
    ):
        for one in (used, waits, idle):
            one.sendall(post(left + b"1"))
            read_answers(one, ["POST"])
        waits.sendall(post(b"hold"))
        assert echo.taken.wait(20)
        for _ in range(6):  # longer than a connection may be idle
            time.sleep(0.5)
            used.sendall(post(left + b"2"))
            read_answers(used, ["POST"])
        assert idle.recv(1) == b""
        echo.release(0, b"3")
        assert read_answers(waits, ["POST"])[0].body == b"3"


def test_every_answer_has_the_date_of_its_second(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        dates = []
        for _ in range(3):
            connection.sendall(post(b"1"))
            head = connection.recv(4_096).split(b"\r\n\r\n")[0]
            (date,) = [line for line in head.split(b"\r\n") if line.startswith(b"date: ")]
            dates.append(parsedate_to_datetime(date[6:].decode()))
            time.sleep(1.2)
    assert dates[0] < dates[1] < dates[2]
