import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from driftline.runtime.logging import configure_logging, get_logger, log_context


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_json_lines_carry_service_and_context(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("ingest", "ingest-0", "json", "info")
    with log_context(request_id="r-1"):
        get_logger("here").info("batch applied", rows=3)
        logging.getLogger("a.library").warning("by %s", "stdlib")
    get_logger("here").debug("not shown")
    get_logger("here").info("after")
    first, second, third = [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert first["event"] == "batch applied"
    assert (first["rows"], first["service"], first["instance"], first["request_id"]) == (
        3,
        "ingest",
        "ingest-0",
        "r-1",
    )
    assert (second["event"], second["request_id"], second["level"]) == ("by stdlib", "r-1", "warning")
    assert "request_id" not in third


def test_tracebacks_show_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("json", "pretty"):
        configure_logging("ingest", "ingest-0", form, "info")
        secret = "hu" + "sh"
        try:
            raise KeyError(len(secret))
        except KeyError:
            get_logger("here").exception("failed")
        shown = capsys.readouterr().err
        assert "KeyError" in shown
        assert "hush" not in shown
        structlog.reset_defaults()
