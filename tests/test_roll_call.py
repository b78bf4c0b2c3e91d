"""Who is lost, and that nobody waits for them: with hosts that answer, die or say nothing."""

import numpy as np
import polars as pl
import pytest

from aar_swarm.agent_process import ROW_FIELDS
from aar_swarm.write_up import agents_table
from cluster.placement import ActorDied, Node
from cluster.roll_call import NO_STATUS, RollCall
from cluster.scoreboard import row_dtype


class FakeHost:
    """As placement.Actor; a call is the name of its method."""

    what = "the host actor"

    def __init__(self, address: str) -> None:
        self.node = Node(address, address, 1.0, False)
        self.state = "well"
        self.asked: list[str] = []
        self.killed = False

    def begin(self, method: str, *_: object) -> str:
        self.asked.append(method)
        return method

    def has_answered(self, call: str) -> bool:
        return self.state != "silent"

    def end(self, call: str, timeout_s: float = 15.0) -> object:
        if self.state == "silent":
            raise ActorDied(f"{self.what} on {self.node.address} has not answered for {timeout_s:.0f} s")
        if self.state == "dead":
            raise ActorDied(f"{self.what} on {self.node.address} died")
        return NO_STATUS | {"alive": 2} if call == "status" else call

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def three() -> tuple[RollCall, list[FakeHost]]:
    calls, hosts = RollCall(), [FakeHost(name) for name in "abc"]
    for number, host in enumerate(hosts):
        calls.add(host, [2 * number, 2 * number + 1])  # type: ignore[arg-type]
    calls.look()
    assert calls.look() == [] and [status["alive"] for status in calls.latest()] == [2, 2, 2]
    return calls, hosts


def test_a_dead_host_is_lost_at_once_and_told_once(three):
    calls, hosts = three
    hosts[1].state = "dead"
    [lost] = calls.look()
    assert lost.address == "b" and lost.agents == [2, 3] and "died" in lost.why
    assert calls.look() == [] and [status["alive"] for status in calls.latest()] == [2, 0, 2]


def test_a_silent_host_is_waited_for_only_when_all_are_asked(three):
    calls, hosts = three
    hosts[2].state = "silent"
    for _ in range(5):
        assert calls.look() == []
    assert hosts[2].asked.count("status") == 2  # one is on its way, and no more are sent after it
    assert calls.latest()[2]["alive"] == 2  # what it said last
    assert calls.ask("rows") == {0: "rows", 1: "rows"}
    assert set(calls.lost) == {2} and calls.latest()[2] == NO_STATUS
    assert calls.ask("stop") == {0: "stop", 1: "stop"} and "stop" not in hosts[2].asked
    calls.kill_lost()
    assert [host.killed for host in hosts] == [False, False, True]


def test_a_host_that_is_back_in_time_is_not_lost(three):
    calls, hosts = three
    hosts[0].state = "silent"
    calls.look()
    hosts[0].state = "well"
    assert calls.look() == [] and calls.ask("rows").keys() == {0, 1, 2}


def test_of_agents_of_a_lost_host_the_table_says_who_they_were_and_null():
    rows = np.zeros(3, row_dtype(ROW_FIELDS))
    rows["agent_id"], rows["pid"], rows["shares"] = [0, 1, 2], [10, 0, 12], [5, 0, 0]
    table = agents_table(rows, ["crowd", "crowd", "makers"], [1])
    assert table["pid"].to_list() == [10, None, 12] and table["shares"].to_list() == [5, None, 0]
    assert table["agent_id"].to_list() == [0, 1, 2] and table["participants"].to_list() == ["crowd", "crowd", "makers"]
    assert table.schema["pid"] == pl.Int64
    assert agents_table(rows, ["crowd"] * 3, [])["pid"].to_list() == [10, 0, 12]
