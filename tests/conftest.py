"""What tests share: where the data is, the check that nothing of a run is left behind, compiled kernels, and the order
in which `make test` gives them to its workers."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from aar_swarm import cli
from tests.kernels import compiled
from tests.processes import marked_pids, wait_until
from tests.runs import aar, small, summary_of

# No deadline: the first example may compile a kernel. No database: tests leave nothing behind.
settings.register_profile("aar", deadline=None, database=None, print_blob=True)
settings.load_profile("aar")

_ROOT = Path(__file__).resolve().parent.parent

MACHINE = (
    *("test_exit_door", "test_run", "test_shared_brain", "test_diversity", "test_kill_switch", "test_flash_crash"),
    *(
        "test_supervised_run",
        "test_messages_of_a_run",
        "test_cli",
        "test_faults",
        "test_scripts",
        "test_vendors",
        "test_machine_lock",
    ),
    *("test_sweep", "test_scaling", "test_defences", "test_designs", "test_explained", "test_postmortem"),
    *("test_validation", "test_ray_up"),
    *("test_notice_board", "test_guard", "test_host", "test_zygote", "test_links", "test_link_measures"),
    *("test_relay", "test_packed"),
)
"""Start Ray, dozens of processes, or what is sensitive to other load: one at a time, beside all others."""
NO_KERNELS = {
    *("test_placement", "test_roll_call", "test_hosts_script"),
    *(
        "test_lease",
        "test_core_wait",
        "test_agent_process",
        "test_agents",
        "test_architecture",
        "test_bits",
        "test_codec",
        "test_comparison",
    ),
    *(
        "test_sql",
        "test_defi_agents",
        "test_execution",
        "test_flash_agents",
        "test_keys",
        "test_lobster",
        "test_oracle",
    ),
    *("test_race_agents", "test_report", "test_scenario", "test_statistics", "test_stylised", "test_theory"),
    "test_vendor_fund",
    "test_lease",
    *(
        "test_client",
        "test_decision",
        "test_wire_document",
        "test_guard",
        "test_host",
        "test_launch",
        "test_links",
        "test_machine_lock",
        "test_zygote",
    ),
    *("test_relay", "test_packed_process"),
}
"""Are run while others compile."""
ONLY_THE_ENGINE = {
    *("test_clocks", "test_ordering"),
    *("test_breaker", "test_defi_measures", "test_engine_oracle", "test_engine_reference", "test_indicators"),
    *("test_journal", "test_measures", "test_money_measures", "test_money_vectors", "test_oracle_breaker"),
    *(
        "test_calm",
        "test_exports",
        "test_latency_race",
        "test_races",
        "test_oracle_admission",
        "test_oracle_money",
        "test_recovery",
    ),
}
"""All modules that are named nowhere here are taken to need a venue."""


def _rank(item: pytest.Item) -> int:
    name = item.path.stem
    if name in MACHINE:
        return MACHINE.index(name)
    return len(MACHINE) + (0 if name in NO_KERNELS else 1 if name in ONLY_THE_ENGINE else 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what takes longest, and first of that what compiles."""
    items.sort(key=_rank)


class _Modules(LoadFileScheduling):
    """Each worker gets a module as it comes, whole, as its fixtures are shared; those of MACHINE are as one.

    pytest-xdist's own way, the mark xdist_group, is without effect under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = super()._split_scope(nodeid)
        return "machine" if Path(module).stem in MACHINE else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Modules:
    config.option.loadscopereorder = False  # not by the number of tests
    return _Modules(config, log)


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Compile, outside of the time that a test may take."""
    name = item.path.stem
    if name not in NO_KERNELS:
        compiled("engine" if name in ONLY_THE_ENGINE else "venue")
    return (yield)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; the test is skipped, saying so, where it is absent."""
    folder = Path(os.environ.get("AAR_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}: set AAR_DATA to the folder that holds lobster/ and engine-oracle/")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One small run that ended well, and what it printed; for looking at."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    return directory, summary_of(aar(*small(), "--out", directory, "--json"))


@pytest.fixture
def aar_here(capfd: pytest.CaptureFixture[str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """The command line in this process: to start another takes a second."""

    def call(*arguments: object) -> "subprocess.CompletedProcess[str]":
        words = ["aar", *map(str, arguments)]
        capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr(sys, "argv", words)
            cli.main()
        return subprocess.CompletedProcess(words, int(ended.value.code or 0), *capfd.readouterr())

    return call


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After the test no process lives that it started, however indirectly: all of them inherit its mark."""
    mark = f"AAR_TEST={secrets.token_hex(8)}"
    monkeypatch.setenv(*mark.split("=", 1))
    yield
    wait_until(lambda: not marked_pids(mark), "gone, all that the test started")
