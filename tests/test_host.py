import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.host import AgentHost
from cluster.zygote_client import ZygoteClosed, ZygoteGone
from tests.dummy_agent import FIELDS
from tests.processes import is_alive, ray_driver, wait_until, wait_until_dead

TARGET = "tests.dummy_agent:run"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "agents.log"


@pytest.fixture
def host(log: Path) -> Iterator[AgentHost]:
    host = AgentHost(TARGET, ["zmq"], FIELDS, capacity=64, log_path=str(log))
    yield host
    host.stop()


def test_fifty_agents_of_arbitrary_ids_finish(host: AgentHost) -> None:
    ids = [1_000_000 + 17 * number for number in range(50)]
    assert host.spawn([(agent_id, {"value": agent_id}) for agent_id in ids], {"do": "finish"}) == 50
    status = host.stop(grace_s=10)
    assert (status["alive"], status["finished"], status["failed"]) == (0, 50, 0)
    assert {code for _, _, code in status["exited"]} == {0}
    assert status["fork_error"] is None
    rows = host.rows()
    assert rows["agent_id"].tolist() == ids
    assert rows["value"].tolist() == ids


def test_an_agents_spec_overrides_what_is_common(host: AgentHost) -> None:
    host.spawn([(1, {}), (2, {"value": 9})], {"do": "finish", "value": 5})
    host.stop(grace_s=10)
    assert host.rows()["value"].tolist() == [5, 9]


def test_status_follows_agents_from_ready_to_their_ends(host: AgentHost, log: Path) -> None:
    host.spawn([(1, {"do": "stay"}), (2, {"do": "stay"}), (3, {"do": "crash"}), (4, {"do": "finish"})])
    wait_until(lambda: host.status()["alive"] == 2 and host.status()["ready"] == 2, "two ready, two ended")
    status = host.status()
    assert (status["ready"], status["finished"], status["failed"]) == (2, 1, 1)
    assert sorted((agent_id, code) for agent_id, _, code in status["exited"]) == [(3, 1), (4, 0)]
    assert "agent 3 was told to crash" in log.read_text()
    assert host.status(exits_from=2)["exited"] == []


def test_kill_returns_the_pids_of_the_dead(host: AgentHost) -> None:
    host.spawn([(agent_id, {"do": "stay"}) for agent_id in (5, 6, 7)])
    wait_until(lambda: host.status()["ready"] == 3, "ready")
    pid_of = dict(zip(host.rows()["agent_id"].tolist(), host.rows()["pid"].tolist(), strict=True))
    assert host.kill([6, 12345]) == [pid_of[6]]
    assert not is_alive(pid_of[6]) and is_alive(pid_of[5])
    assert host.status()["exited"] == [(6, pid_of[6], -signal.SIGKILL)]
    assert sorted(host.kill(None)) == sorted([pid_of[5], pid_of[7]])
    assert host.kill(None) == []


def test_an_id_may_come_again_after_its_end_and_not_before(host: AgentHost) -> None:
    host.spawn([(5, {"do": "count_descriptors_and_stay"})])
    wait_until(lambda: host.rows()["descriptor_count"].tolist() == [4], "counted")
    with pytest.raises(ValueError, match=r"\[5\] are alive"):
        host.spawn([(5, {"do": "stay"})])
    host.kill([5])
    assert host.spawn([(5, {"do": "finish"})]) == 1
    host.stop(grace_s=10)
    assert host.rows()["agent_id"].tolist() == [5]
    assert host.rows()["descriptor_count"].tolist() == [0]


def test_what_cannot_be_spawned_is_refused_before_any_fork(host: AgentHost) -> None:
    with pytest.raises(ValueError, match="twice"):
        host.spawn([(1, {"do": "stay"}), (1, {"do": "stay"})])
    with pytest.raises(ValueError, match="65 rows"):
        host.spawn([(agent_id, {"do": "stay"}) for agent_id in range(65)])
    with pytest.raises(TypeError):
        host.spawn([(1, {"do": "stay"}), (2, {"do": object()})])
    assert host.status()["alive"] == 0
    assert host.status()["exited"] == []


def test_a_failed_fork_leaves_fewer_agents_and_a_reason(log: Path) -> None:
    host = AgentHost(TARGET, ["tests.dummy_fork_limit"], FIELDS, capacity=8, log_path=str(log))
    try:
        assert host.spawn([(agent_id, {"do": "stay"}) for agent_id in range(5)]) == 2
        assert "temporarily unavailable" in (host.status()["fork_error"] or "")
        assert host.status()["alive"] == 2
        assert host.spawn([(agent_id, {"do": "stay"}) for agent_id in range(2, 5)]) == 3
        assert host.status()["fork_error"] is None
    finally:
        host.stop()


def test_stop_lets_agents_finish_and_kills_the_rest(host: AgentHost) -> None:
    host.spawn([(1, {"do": "pause", "seconds": 0.2}), (2, {"do": "stay"})])
    wait_until(lambda: bool((host.rows()["pid"] > 0).all()), "both started")
    pids = host.rows()["pid"].tolist()
    status = host.stop(grace_s=2)
    assert status["alive"] == 0
    assert status["exited"] == [(1, pids[0], 0), (2, pids[1], -signal.SIGKILL)]
    assert host.stop() == status
    with pytest.raises(ZygoteClosed):
        host.spawn([(3, {"do": "stay"})])
    with pytest.raises(ZygoteClosed):
        host.kill(None)


def test_the_scoreboard_is_readable_after_the_zygotes_death(host: AgentHost) -> None:
    host.spawn([(1, {"do": "stay", "value": 8})])
    wait_until(lambda: host.status()["ready"] == 1, "ready")
    pid = int(host.rows()["pid"][0])
    os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    wait_until_dead([pid])
    with pytest.raises(ZygoteGone):
        host.status()
    assert host.rows()["value"].tolist() == [8]
    assert host.stop()["alive"] == 0


def test_memory_is_shared_among_agents(host: AgentHost) -> None:
    assert host.memory_kb() is None
    host.spawn([(agent_id, {"do": "stay"}) for agent_id in range(60)])
    wait_until(lambda: host.status()["ready"] == 60, "ready")
    memory_kb = host.memory_kb()
    assert memory_kb is not None
    assert 60 * 100 < memory_kb < 60 * 20_000


def test_node_says_where_it_runs(host: AgentHost) -> None:
    node = host.node()
    assert node["pid"] == os.getpid()
    assert node["host_name"] == os.uname().nodename
    assert len(node["boot_id"]) == 36
    assert len(node["node_ip"].split(".")) == 4
    assert node["zygote_scheduling"] in ("SCHED_FIFO", "normal")


def test_a_host_is_refused_outside_the_main_thread() -> None:
    raised: list[BaseException] = []

    def attempt() -> None:
        try:
            AgentHost(TARGET, [], FIELDS, capacity=1)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])


@pytest.mark.slow
def test_agents_die_with_their_ray_actor() -> None:
    with ray_driver() as (process, started, _):
        assert all(map(is_alive, started["agents"]))
        assert process.stdin is not None
        process.stdin.write("kill the actor\n")
        process.stdin.flush()
        wait_until_dead([started["actor"], *started["agents"]])
        assert process.poll() is None
