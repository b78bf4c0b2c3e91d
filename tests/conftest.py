"""What tests share: where the data is, a place for runs, and the check that nothing of a run is left behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cluster.guard import RUN_ID_VARIABLE

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


def _processes_of_runs() -> dict[int, str]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            if any(entry.startswith(f"{RUN_ID_VARIABLE}=".encode()) for entry in environment):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:100]
        except OSError:
            continue
    return found


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """After the test no process of any run lives that did not live before."""
    before = _processes_of_runs()
    yield
    left = {pid: name for pid, name in _processes_of_runs().items() if pid not in before}
    assert not left, f"left running: {left}"
