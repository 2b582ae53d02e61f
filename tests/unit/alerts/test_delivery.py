"""The channels of our own, the words, and what is hidden."""

import io
from pathlib import Path

import orjson
import pytest

from driftline.alerts.delivery import Channel, DeliveryError, append_line, as_fields, scrubbed
from driftline.alerts.wording import Notification, compose
from driftline.runtime.errors import ConfigurationError
from tests.unit.alerts.scenes import Book, cause, route, rules


def notification(input_id: str = "s1", **template: str) -> Notification:
    book = Book(rules=rules()).tell(cause(input_id)).wait(1)
    return compose(book.last, book.due[0], route("chat", **template))


def test_the_words() -> None:
    found = notification()
    assert found.title == f"[FIRING CRITICAL] v1|| moved (#{found.alert.alert_id[:8]})"
    assert found.body.startswith("v1|| moved far\n\nRunbook: runbook#drift\n")
    assert found.key in found.body
    own = notification(title="{model}\n{team}", body="{status} since {started_at}, {count}")
    assert (own.title, own.body) == ("lateness flights-team", "FIRING since 1970-01-01T00:00:00Z, 1")


def test_a_line_is_appended_once_however_often(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "alerts.jsonl"
    first, second = notification("s1"), notification("s2")
    assert [append_line(path, one) for one in (first, first, second, first, second)] == [
        *(True, False, True, False, False)
    ]
    lines = [orjson.loads(line) for line in path.read_text().splitlines()]
    assert [line["key"] for line in lines] == [first.key, second.key]
    assert lines[0] == {"key": first.key, "title": first.title, "text": first.body, **as_fields(first)}


def test_a_line_that_was_cut_off_is_written_whole_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    append_line(path, notification("s1"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1].replace(b"s1", b"s2"))  # without its end
    cut = notification("s2")
    path.write_bytes(whole + orjson.dumps({"key": cut.key, "title": "cut"}))
    assert append_line(path, cut)
    assert [orjson.loads(line)["key"] for line in path.read_text().splitlines()][-1] == cut.key
    assert not append_line(path, cut)


def test_the_terminal_shows_it() -> None:
    stream = io.StringIO()
    found = notification()
    Channel(url="terminal://", terminal=stream).deliver(found)
    assert stream.getvalue().splitlines()[0] == f"! {found.title}"
    assert "! Runbook: runbook#drift" in stream.getvalue()


def test_a_file_that_cannot_be_written_is_a_failed_delivery(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, no folder")
    with pytest.raises(DeliveryError, match=r"^alerts"):
        Channel(url="file://taken/alerts.jsonl", folder=tmp_path).deliver(notification())


@pytest.mark.parametrize("url", ["nonsense://S3CRETS3CRET", "S3CRETS3CRET", "file://", ""])
def test_a_url_of_no_channel_is_refused_unseen(url: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Channel(url=url).check()
    assert "S3CRET" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "terminal://",
        "file:///tmp/a.jsonl",
        "json://127.0.0.1:9/x",
        "mailto://127.0.0.1:25?from=alerts@example.org&to=anna@example.org",
    ],
)
def test_urls_of_channels_are_accepted(url: str) -> None:
    Channel(url=url).check()


def test_errors_hide_what_a_url_may_hide() -> None:
    url = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    text = scrubbed("cannot reach T1JJ3T3L2 with TIiajkdnlazkcOXrIdevi7FQ", url)
    assert text == "cannot reach *** with ***"
    assert scrubbed(
        "mail.example.org refused anna with pa55word!", "mailtos://anna:pa55word%21@mail.example.org"
    ) == ("mail.example.org refused anna with ***")
