"""Every test starts without the settings of the shell that runs it, and a failed one is told in few lines at the end."""

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

# Before scikit-learn is loaded: threads that wait by spinning make small fits slower on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test has a limit in time of the wall: machines share their processors. A test that hangs ends by pytest-timeout.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# What helpers assert is told with its values, as in the tests themselves.
pytest.register_assert_rewrite("tests.e2e", "tests.integration")

_OURS = ("DRIFTLINE_", "KAFKA_", "SCHEMA_REGISTRY_", "REDIS_")
_KEPT = {"DRIFTLINE_CACHE", "DRIFTLINE_MAVEN_REPOSITORY"}
#: Of what a failed test captured, the end is shown: characters per section.
_CAPTURED = 4_000
#: Of a failure's message in the summary: characters.
_MESSAGE = 4_000


def pytest_configure(config: pytest.Config) -> None:
    """A test must not find anyone's real servers."""
    for name in [name for name in os.environ if name.startswith(_OURS) and name not in _KEPT]:
        del os.environ[name]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Say of each failure when it happens, where there is a terminal: not in the processes that xdist starts."""
    terminal = session.config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None and not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_ToldAtOnce(terminal))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the end of what was captured: services that ran for minutes write a lot."""
    report = yield
    report.sections = [
        (name, text if len(text) <= _CAPTURED else f"[...]\n{text[-_CAPTURED:]}")
        for name, text in report.sections
    ]
    return report


class _ToldAtOnce:
    """Names a test when it fails: a run goes on for many minutes after it."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write one line, with the first of the message."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = (crash.message if crash else str(report.longrepr)).splitlines()
            self._terminal.ensure_newline()
            self._terminal.line(f"FAILED {report.nodeid}: {why[0][:200] if why else ''}")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell last where and why each test failed, for whoever reads just the end of a long log."""
    failed = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
    if not failed:
        return
    terminalreporter.section("where and why")
    for report in failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        when = f" ({report.when}, after {report.duration:.0f} s)" if hasattr(report, "duration") else ""
        why = crash.message if crash else str(report.longrepr)
        terminalreporter.line(f"{report.nodeid}{when}")
        terminalreporter.line(
            f"  {crash.path}:{crash.lineno}" if crash else "  before or after the test itself"
        )
        for line in why[:_MESSAGE].splitlines():
            terminalreporter.line(f"  {line}")
