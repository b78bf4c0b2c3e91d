"""How agents are divided among nodes, and what an address is refused for."""

import dataclasses
import importlib.util

import pytest

from cluster import code, placement
from cluster.limits import in_processes_of
from cluster.placement import Node, divide
from exchange.errors import ConfigurationError


def node(address: str = "10.0.0.1", cores: float = 4.0, exchange: bool = False, **found: object) -> Node:
    return Node(address, address, cores, exchange, **found)  # type: ignore[arg-type]


def test_agents_are_divided_by_free_cores_and_none_is_lost():
    assert divide(1000, [node(cores=2.0)]) == [1000]
    shares = divide(1001, [node("a", 6.0), node("b", 8.0), node("c", 4.0)])
    assert sum(shares) == 1001 and shares == [250, 501, 250]  # the first has the venue: two cores fewer


def test_the_venue_s_node_keeps_two_cores_for_it_unless_it_is_the_only_one():
    assert divide(90, [node("a", 4.0, exchange=True), node("b"), node("c")]) == [18, 36, 36]
    assert divide(90, [node("a", 2.0, exchange=True), node("b"), node("c")]) == [0, 45, 45]
    assert divide(90, [node("a"), node("b", 2.0, exchange=True)]) == [90, 0]
    assert divide(90, [node("a", 1.0, exchange=True)]) == [90]
    assert divide(90, [node("a", 0.0), node("b", 4.0, exchange=True)]) == [0, 90]


def test_a_node_gets_no_more_than_its_memory_bears_and_the_others_take_the_rest():
    tight = node("b", 8.0, agents_max=10, agents_max_why="60 MB are free")
    assert divide(100, [node("a", 6.0), tight, node("c", 4.0)]) == [45, 10, 45]
    with pytest.raises(ConfigurationError, match=r"--agents 100: .*b: 60 MB are free.*at most 10$"):
        divide(100, [node("a", 0.0, exchange=True), tight])


def test_a_venue_that_cannot_serve_so_many_is_told_wherever_they_run():
    venue = node("a", exchange=True, venue_agents_max=50, venue_agents_max_why="350 descriptors")
    with pytest.raises(ConfigurationError, match="on a 350 descriptors; ask for at most 50"):
        divide(51, [venue, node("b")])


def test_a_ray_client_without_grpc_is_told_what_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"needs the package grpcio.*pip install 'ray\[client\]==\d"):
        placement.check_address("ray://127.0.0.1:10001")


def test_what_is_shipped_is_our_packages_and_a_user_s_own_strategies(tmp_path, monkeypatch):
    (tmp_path / "my_own_strategy.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = code.shipped({"my_own_strategy:Mine", "aar_swarm.agents.holder:Holder"})
    assert paths == [*(str(code.ROOT / name) for name in code.PACKAGES), str(tmp_path / "my_own_strategy.py")]


def test_a_venue_starts_from_the_driver_s_sources_only_where_they_are_the_same(tmp_path, monkeypatch):
    for name, value in code.variables().items():
        monkeypatch.setenv(name, value)
    assert code.venue_root() == code.ROOT
    (tmp_path / "exchange").mkdir()
    (tmp_path / "exchange" / "server.py").write_text("something else")
    monkeypatch.setenv(code.ROOT_VARIABLE, str(tmp_path))
    monkeypatch.setattr(code, "ROOT", tmp_path / "shipped")
    assert code.venue_root() == tmp_path / "shipped"
    monkeypatch.setenv(code.ROOT_VARIABLE, str(tmp_path / "absent"))
    assert code.venue_root() == tmp_path / "shipped"


def test_agents_that_share_processes_are_bounded_by_memory_and_not_by_the_venue_s_descriptors():
    small = [dataclasses.replace(node("a"), agents_max=100, venue_agents_max=50, venue_agents_max_why="descriptors")]
    with pytest.raises(ConfigurationError, match="descriptors"):
        divide(60, small)
    assert divide(60, small, packed=1) == [60]
    assert divide(in_processes_of(100, 100), small, packed=100) == [in_processes_of(100, 100)]
    with pytest.raises(ConfigurationError, match="ask for at most"):
        divide(100_000, small, packed=100)
    assert in_processes_of(1, 100) == 100
    assert in_processes_of(151, 100) == 50 * 151  # 150 more agents take as much memory as a process


@pytest.mark.parametrize("changed", ["exchange/server.py", "cluster/launch/a.py", "aar_swarm/scenarios/exit-door.toml"])
def test_any_difference_in_what_a_run_is_made_of_is_another_code(tmp_path, changed):
    for name in ("exchange/server.py", "cluster/launch/a.py", "aar_swarm/cli.py", "aar_swarm/scenarios/exit-door.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    before = code.digest(tmp_path)
    (tmp_path / "exchange" / "__pycache__").mkdir()
    (tmp_path / "exchange" / "__pycache__" / "server.nbc").write_text("compiled")
    assert code.digest(tmp_path) == before
    (tmp_path / changed).write_text("x")
    assert code.digest(tmp_path) != before
