"""What tests share: where the data is, a place for runs, and the check that nothing of a run is left behind."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.processes import marked_pids, wait_until

# No deadline: the first example may compile a kernel. No database: tests leave nothing behind.
settings.register_profile("aar", deadline=None, database=None, print_blob=True)
settings.load_profile("aar")

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; the test is skipped, saying so, where it is absent."""
    folder = Path(os.environ.get("AAR_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}: set AAR_DATA to the folder that holds lobster/ and engine-oracle/")
    return folder


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After the test no process lives that it started, however indirectly: all of them inherit its mark."""
    mark = f"AAR_TEST={secrets.token_hex(8)}"
    monkeypatch.setenv(*mark.split("=", 1))
    yield
    wait_until(lambda: not marked_pids(mark), "gone, all that the test started")
