"""The `alerts:` section: what it accepts, what it refuses, and that a URL is never shown."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from driftline.alerts.alert import Severity
from driftline.alerts.loading import load_rules
from driftline.alerts.rules import AlertRules, Route, parse_rules
from driftline.runtime.errors import ConfigurationError

SECTION = """
alerts:
  grouping: 2s
  repeat: 1h
  routes:
    - name: chat
      urls: ["${CHAT_URL:-terminal://}"]
      models: ["late*"]
    - name: pager
      urls: ["pagerduty://S3CRETKEY@${PAGER}"]
      severities: [CRITICAL]
      teams: [flights-team]
      groups: ["flights/*/drift"]
      escalate: {after: 15m, to: chat}
      quiet: {from: 22:00, until: "07:00", zone: America/New_York}
      title: "{severity}: {title}"
  silences:
    - {groups: ["flights/services/*"], until: 2026-01-01T00:00:00Z}
  runbooks: {drift: "https://wiki/drift"}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "driftline.yaml"


def load(path: Path, text: str = SECTION) -> AlertRules:
    path.write_text(text)
    return load_rules(path)


def test_a_section_is_read(path: Path) -> None:
    rules = load(path)
    assert (rules.grouping_us, rules.repeat_us) == (2_000_000, 3_600_000_000)
    chat, pager = rules.routes
    assert chat.wants(severity=Severity.WARNING, model="lateness", team="x", group="g")
    assert not chat.wants(severity=Severity.WARNING, model="other", team="x", group="g")
    assert not chat.wants(severity=Severity.INFO, model="lateness", team="x", group="g")
    wanted = {"model": "m", "team": "flights-team", "group": "flights/m/drift"}
    assert pager.wants(severity=Severity.CRITICAL, **wanted)
    assert not pager.wants(severity=Severity.WARNING, **wanted)
    assert not pager.wants(severity=Severity.CRITICAL, **{**wanted, "team": "others"})
    assert not pager.wants(severity=Severity.CRITICAL, **{**wanted, "group": "flights/m/training"})
    assert pager.quiet is not None
    assert (pager.quiet.begin.hour, pager.quiet.until.hour) == (22, 7)  # YAML reads 22:00 as a number


def test_no_section_means_the_terminal(path: Path) -> None:
    (route,) = load(path, "name: flights\n").routes
    assert route.urls[0].get_secret_value() == "terminal://"


@pytest.mark.parametrize(
    ("hour_utc", "quiet"), [(1, False), (3, True), (10, True), (11, True), (12, False), (20, False)]
)
def test_quiet_hours_pass_midnight_in_their_own_zone(path: Path, hour_utc: int, quiet: bool) -> None:
    pager = load(path).routes[1]
    assert (
        pager.is_quiet(Severity.CRITICAL, hour_utc * 3_600_000_000) is quiet
    )  # New York: UTC-5 in January 1970


def test_variables_are_replaced_and_missing_ones_named(path: Path) -> None:
    rules = load(path).with_environment({"PAGER": "k123"})
    assert [route.urls[0].get_secret_value() for route in rules.routes] == [
        "terminal://",
        "pagerduty://S3CRETKEY@k123",
    ]
    with pytest.raises(ConfigurationError, match=r"PAGER \(route pager\)") as error:
        load(path).with_environment({})
    assert "S3CRET" not in str(error.value)


def test_urls_are_never_shown(path: Path) -> None:
    assert "S3CRET" not in repr(load(path))
    broken = SECTION.replace("severities: [CRITICAL]", "severities: [LOUD]")
    with pytest.raises(ConfigurationError, match=r"alerts\.routes\.1\.severities\.0") as error:
        load(path, broken)
    assert "S3CRET" not in str(error.value)
    with pytest.raises(ConfigurationError, match="line") as error:
        load(path, SECTION.replace('"pagerduty', "[pagerduty"))
    assert "S3CRET" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"routes": [{"name": "a", "urls": ["x://"]}, {"name": "a", "urls": ["x://"]}]},
            "two routes are named a",
        ),
        (
            {"routes": [{"name": "a", "urls": ["x://"], "escalate": {"after": "1m", "to": "b"}}]},
            "escalates to b, which is no route",
        ),
        ({"routes": [{"name": "a", "urls": []}]}, "at least 1 item"),
        ({"routes": [{"name": "a", "urls": ["x://"], "title": "{nothing}"}]}, "unknown placeholders"),
        ({"routes": [{"name": "a", "urls": ["x://"], "title": "{title.__class__}"}]}, "unknown placeholders"),
        ({"routes": [{"name": "a", "urls": ["x://"], "body": "{"}]}, "no template"),
        (
            {
                "routes": [
                    {
                        "name": "a",
                        "urls": ["x://"],
                        "quiet": {"from": "1:00", "until": "2:00", "zone": "Mars"},
                    }
                ]
            },
            "no time zone",
        ),
        ({"grouping": "soon"}, "not a duration"),
        ({"sirens": True}, "Extra inputs"),
    ],
)
def test_mistakes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=message):
        parse_rules(change)


@pytest.mark.parametrize(
    ("url", "said", "again"),
    [
        ("jsons://host/x", None, True),
        ("file://alerts.jsonl", None, True),
        ("mailto://host", None, True),
        ("slack://a/b/c", None, False),
        ("slack://a/b/c", "again", True),
        ("json://host", "skip", False),
    ],
)
def test_what_is_sent_again_after_a_crash(url: str, said: str | None, again: bool) -> None:
    route = Route.model_validate({"name": "r", "urls": [url], "after_crash": said})
    assert route.again_after_crash(0) is again


def test_the_example_in_the_docstring_is_valid() -> None:
    import driftline.alerts.rules as module

    example = (module.__doc__ or "").split("```yaml")[1].split("```")[0]
    with pytest.raises(ValidationError, match="escalates to manager"):
        parse_rules(yaml.safe_load(example)["alerts"])
