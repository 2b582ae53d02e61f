"""Those who are told: a real SMTP server and a real webhook, each a thread on the loopback."""

import asyncio
import email
import email.message
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class SmtpServer:
    """Takes mail (RFC 5321, as far as a client needs) and keeps it. ``refuse`` answers 451 to so many mails."""

    def __init__(self) -> None:
        self.mails: list[email.message.Message] = []
        self.refuse = 0
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._talk, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"mailto://127.0.0.1:{self.port}?from=alerts@example.org&to=anna@example.org"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            command = line.strip().upper()
            if command == b"DATA":
                writer.write(b"354 go on\r\n")
                body = await reader.readuntil(b"\r\n.\r\n")
                writer.write(self._keep(body))
            elif command == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")
        await writer.drain()
        writer.close()

    def _keep(self, body: bytes) -> bytes:
        if self.refuse:
            self.refuse -= 1
            return b"451 not now\r\n"
        self.mails.append(email.message_from_bytes(body.removesuffix(b".\r\n")))
        return b"250 taken\r\n"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A request that the webhook got."""

    path: str
    key: str
    body: dict[str, Any]
    answered: int


@dataclass(slots=True, kw_only=True)
class Webhook:
    """Takes posts and keeps them; ``answer`` decides the status of each, and may take its time."""

    answer: Callable[[str], int] = lambda _path: 200
    posts: list[Post] = field(default_factory=list)
    ready: bool = True
    _server: Any = None
    _lock: Any = field(default_factory=threading.Lock)

    def start(self) -> "Webhook":
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = webhook.answer(self.path)
                with webhook._lock:
                    key = self.headers["Idempotency-Key"]
                    webhook.posts.append(Post(path=self.path, key=key, body=body, answered=status))
                self._reply(status, b"{}")

            def do_GET(self) -> None:
                """/readyz of a service that the tests make fail."""
                shown = {"components": {"broker": {"ready": webhook.ready, "detail": "silent"}}}
                self._reply(200 if webhook.ready else 503, json.dumps(shown).encode())

            def _reply(self, status: int, body: bytes) -> None:
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # the caller was killed

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def taken(self, path: str = "/hook") -> list[Post]:
        """Return the posts that were answered with 200."""
        with self._lock:
            return [post for post in self.posts if post.path == path and post.answered == 200]

    def keys(self, path: str = "/hook") -> Counter[str]:
        return Counter(post.key for post in self.taken(path))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def wait_for(what: Callable[[], Any], *, seconds: float = 30, explain: Callable[[], str] = lambda: "") -> Any:
    """Return what is awaited once it is there."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, f"not in {seconds:g} s: {explain()}"
        time.sleep(0.05)
    return found
