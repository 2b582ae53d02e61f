"""Deliver a notification through a channel: apprise's, the terminal, or a file of JSON lines. One attempt each.

The idempotency key goes along wherever a channel has a place for it:

=================== ===========================================================================================
webhooks            header ``Idempotency-Key`` and field ``idempotency_key`` (``json(s)://``, ``form(s)://``,
                    ``xml(s)://``: the header alone)
e-mail              header ``Idempotency-Key``; ``References`` ties the mails of one alert together
file                field ``key``: a line whose key is there already is not written again
everything else     in the body, for people
=================== ===========================================================================================
"""

import fcntl
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

import apprise
import orjson

from driftline.alerts.alert import AlertStatus, Severity
from driftline.alerts.wording import Notification
from driftline.runtime.errors import ConfigurationError, UnavailableError

KEY_HEADER = "Idempotency-Key"
_TERMINAL = "terminal"
_FILE = "file"
#: Schemes whose host is no secret, and worth reading in an error.
_OPEN_HOSTS = frozenset({"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"})
_SHORTEST_SECRET = 5
#: How far back in a file a key is looked for.
_LOOK_BACK_BYTES = 4_000_000
_TYPES = {
    Severity.INFO: apprise.NotifyType.INFO,
    Severity.WARNING: apprise.NotifyType.WARNING,
    Severity.CRITICAL: apprise.NotifyType.FAILURE,
}
_writing = threading.Lock()


class DeliveryError(UnavailableError):
    """The channel did not take the notification. The message holds nothing secret of its URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One URL of a route. ``folder`` is where relative ``file://`` paths begin; ``terminal`` is a text stream."""

    url: str
    timeout_seconds: float = 10.0
    folder: Path = Path()
    terminal: TextIO | None = None

    def check(self) -> None:
        """Raise ConfigurationError where the URL names no channel; without showing it."""
        if self._scheme in (_TERMINAL, _FILE):
            if self._scheme == _FILE and not self._path.name:
                raise ConfigurationError("file:// without a path: write file://alerts.jsonl")
            return
        with _complaints():
            if _plugin(self.url) is None:
                raise ConfigurationError(
                    f"no URL that apprise understands (its scheme is {self._scheme or 'missing'!r}); see "
                    "https://github.com/caronc/apprise/wiki"
                )

    def deliver(self, notification: Notification) -> None:
        """Deliver, or raise DeliveryError. Returns soon after ``timeout_seconds`` at the latest, mostly."""
        if self._scheme == _TERMINAL:
            _print(notification, self.terminal or sys.stdout)
        elif self._scheme == _FILE:
            try:
                append_line(self._path, notification)
            except OSError as error:
                raise DeliveryError(f"{self._path.name}: {error.strerror}") from error
        else:
            self._send(notification)

    @property
    def _scheme(self) -> str:
        return self.url.partition("://")[0].lower() if "://" in self.url else ""

    @property
    def _path(self) -> Path:
        return self.folder / unquote(self.url.partition("://")[2])

    def _send(self, notification: Notification) -> None:
        with _complaints() as complaints:
            plugin = _plugin(self.url)
            if plugin is None:
                raise DeliveryError("no URL that apprise understands")
            plugin.socket_connect_timeout = plugin.socket_read_timeout = self.timeout_seconds
            _hand_over_key(plugin, notification)
            sender = apprise.Apprise()
            sender.add(plugin)
            taken = sender.notify(
                title=notification.title,
                body=notification.body,
                notify_type=_type_of(notification),
                body_format=apprise.NotifyFormat.TEXT,
            )
        if not taken:
            reason = "; ".join(complaints) or "the channel said no"
            raise DeliveryError(scrubbed(reason, self.url))


@cache
def _load_plugins() -> None:
    """Load apprise's plugins, one of which uses a module that Python 3.13 leaves out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        apprise.Apprise.instantiate("json://localhost")


def _plugin(url: str) -> Any:
    _load_plugins()
    return apprise.Apprise.instantiate(url)


def _type_of(notification: Notification) -> apprise.NotifyType:
    if notification.status is AlertStatus.RESOLVED:
        return apprise.NotifyType.SUCCESS
    return _TYPES[notification.severity]


def _hand_over_key(plugin: Any, notification: Notification) -> None:
    """Put the idempotency key, and what machines want to read, where the plugin has a place for it."""
    headers = getattr(plugin, "headers", None)
    if isinstance(headers, dict):
        headers[KEY_HEADER] = notification.key
        if plugin.__class__.__name__ == "NotifyEmail":
            headers["References"] = f"<{notification.alert.alert_id}@driftline>"
    extras = getattr(plugin, "payload_extras", None)
    if isinstance(extras, dict) and plugin.__class__.__name__ in {"NotifyJSON", "NotifyForm"}:
        extras.update(as_fields(notification))


def as_fields(notification: Notification) -> dict[str, Any]:
    """Return what machines read of a notification; none of the names is one of apprise's own."""
    alert = notification.alert.as_json()
    names = ("alert_id", "group", "source", "model", "team", "runbook", "cause_id", "count", "started_at")
    return {
        "idempotency_key": notification.key,
        "status": notification.status.value,
        "severity": notification.severity.value,
        **{name: alert[name] for name in names},
    }


def append_line(path: Path, notification: Notification) -> bool:
    """Append a notification to a file of JSON lines, once: False where its key is there already.

    A line that a crash has cut off is ended first, so that it spoils no other. Raises OSError.
    """
    record = {"key": notification.key, "title": notification.title, "text": notification.body}
    line = orjson.dumps({**record, **as_fields(notification)}) + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LOOK_BACK_BYTES))
        written = file.read()
        if any(f'"key":"{notification.key}"'.encode() in one for one in written.split(b"\n")[:-1]):
            return False
        file.write(line if written.endswith(b"\n") or not written else b"\n" + line)
        file.flush()
        os.fsync(file.fileno())
    return True


def _print(notification: Notification, stream: TextIO) -> None:
    mark = {AlertStatus.RESOLVED: "+", AlertStatus.ACKNOWLEDGED: "~"}.get(notification.status, "!")
    lines = [notification.title, *notification.body.splitlines()]
    text = "\n".join(f"{mark} {line}".rstrip() for line in lines) + "\n"
    with _writing:
        stream.write(text)
        stream.flush()


def scrubbed(text: str, url: str) -> str:
    """Return a text without the parts of a URL that may be secret.

    >>> scrubbed("cannot post to hooks.example.org/T0KEN1234", "jsons://hooks.example.org/T0KEN1234")
    'cannot post to hooks.example.org/***'
    """
    scheme, _, rest = url.partition("://")
    try:
        host = urlsplit(url).hostname if scheme.lower() in _OPEN_HOSTS else None
    except ValueError:
        host = None
    parts = {unquote(part) for part in re.split(r"[/:@?&=,+\s]+", rest)}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= _SHORTEST_SECRET and not part.isdigit() and part.lower() != host:
            text = text.replace(part, "***")
    return text


class _Complaints(logging.Handler):
    """Collects what apprise warns of in one thread: its return value says no more than yes or no."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.texts.append(record.getMessage())


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Yield apprise's warnings; they are not logged, as they may name a URL."""
    logger = logging.getLogger("apprise")
    logger.propagate = False
    handler = _Complaints()
    logger.addHandler(handler)
    try:
        yield handler.texts
    finally:
        logger.removeHandler(handler)
