"""The house rules that a reader relies on: one-way imports, one clock, one maker of random streams, one owner each."""

import ast
from pathlib import Path

import pytest

from exchange.jit import NEVER_COMPILED

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "exchange": {"exchange"},
    "cluster": {"cluster", "exchange"},
    "aar_swarm": {"aar_swarm", "cluster", "exchange"},
}
MODULES = sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))
# The guard's sweeper runs alone, isolated from this project's path, when everything else may be broken; the zygote
# waits on deadlines of its own. Neither measures anything.
OWN_CLOCK = {"exchange/clock.py", "cluster/sweeper.py", "cluster/zygote.py", "cluster/zygote_client.py"}
OWNERS = {
    "ray": {"cluster/placement.py", "cluster/trials.py"},
    "duckdb": {"aar_swarm/sweeps/sql.py"},
    "prometheus_client": {"exchange/metrics.py"},
    "numba": {"exchange/jit.py", "exchange/bits.py", "exchange/libzmq.py"},
    "llvmlite": {"exchange/bits.py", "exchange/libzmq.py"},
    "zmq": {
        "cluster/kill_switch.py",
        "cluster/relay.py",
        "exchange/libzmq.py",
        "exchange/client.py",
        "exchange/server.py",
        "exchange/keys.py",
        "exchange/session.py",
        "exchange/supervisor.py",
        "cluster/venue.py",
        "cluster/links.py",  # pings the venue
        "aar_swarm/agent_process.py",
        "aar_swarm/vendors/client.py",
        "aar_swarm/vendors/process.py",
        "aar_swarm/cli.py",  # the operator's commands
    },
    "msgpack": {"exchange/wire.py", "cluster/frames.py"},
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path):
    package = name_of(path).split("/")[0]
    ours = {name.split(".")[0] for name in imported(path)} & set(ALLOWED)
    assert ours <= ALLOWED[package]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_dependency_has_its_owners(path):
    for dependency in {name.split(".")[0] for name in imported(path)} & set(OWNERS):
        assert name_of(path) in OWNERS[dependency], f"{dependency} is not for this module"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_clock_module_reads_a_clock(path):
    if name_of(path) not in OWN_CLOCK:
        assert not imported(path) & {"time", "datetime"}


# A link's jitter is drawn where the link waits, in a process that knows no agents, from a seed that it is given.
MAKERS_OF_STREAMS = {"aar_swarm/names.py", "cluster/link_proxy.py"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_these_modules_make_random_streams(path):
    assert "random" not in imported(path)
    if name_of(path) not in MAKERS_OF_STREAMS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                is_maker = node.value.attr == "random" and node.attr != "Generator"
                assert not is_maker, f"line {node.lineno} makes a random stream"


def test_no_compiled_code_depends_on_what_leaves_its_cache_alone():
    """jit.NEVER_COMPILED: a change in these modules does not compile anew, so no kernel may come from them."""
    assert all((ROOT / "exchange" / f"{name}.py").exists() for name in NEVER_COMPILED)
    for path in (ROOT / "exchange").glob("*.py"):
        if path.stem in NEVER_COMPILED:
            assert "exchange.jit" not in imported(path)
        elif "exchange.jit" in imported(path):
            compiled_from = {name.removeprefix("exchange.") for name in imported(path)}
            assert not compiled_from & (NEVER_COMPILED - {"errors", "clock"}), path


@pytest.mark.parametrize(
    "name",
    [
        "engine",
        "market",
        "book",
        "accounts",
        "auction",
        "breaker",
        "margin",
        "lending",
        "state",
        "types",
        "bits",
        "replay",
        "indicators",
    ],
)
def test_the_engine_is_pure(name):
    """No socket, no clock, no file, no process: what it imports cannot reach them."""
    path = ROOT / "exchange" / f"{name}.py"
    assert not imported(path) & {
        "os",
        "io",
        "socket",
        "zmq",
        "pathlib",
        "subprocess",
        "exchange.clock",
        "exchange.libzmq",
    }


@pytest.mark.parametrize("path", sorted((ROOT / "aar_swarm" / "agents").glob("*.py")), ids=name_of)
def test_strategies_have_no_input_or_output_of_their_own(path):
    assert not imported(path) & {"os", "io", "socket", "zmq", "subprocess", "exchange.client", "time"}
