from pathlib import Path

import pytest

from tests.unit.checking.market import write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A correct project."""
    return write(tmp_path / "market")
