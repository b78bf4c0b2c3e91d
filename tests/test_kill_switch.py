"""The hard kill: the venue closes sessions at the command; a host's kill switch ends the processes, each confirmed."""

import json
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from cluster.host import AgentHost
from cluster.kill_switch import SUBSCRIBED, KillSwitchGone
from exchange import wire
from exchange.types import NOBODY, BreakerAction, CommandKind, EventKind, Reason, Side, Trigger
from tests.dummy_agent import FIELDS
from tests.processes import is_alive, wait_until
from tests.runs import aar, small, summary_of
from tests.venues import check_replay, log_on_again, running_venue

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AgentHost]:
    host = AgentHost("tests.dummy_agent:run", ["zmq"], FIELDS, capacity=64, log_path=str(tmp_path / "log"))
    yield host
    host.stop()


@pytest.fixture
def notices(tmp_path: Path) -> Iterator["Notices"]:
    made = Notices(f"ipc://{tmp_path}/{secrets.token_hex(4)}")
    yield made
    made.close()


class Notices:
    """A venue that only has notices."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.bind(endpoint)

    def tell_when_heard(self) -> None:
        """A switch's subscriptions come; then a heartbeat says that it is heard."""
        for _ in range(len(SUBSCRIBED) + 1):
            assert self.socket.poll(10_000) and self.socket.recv()[0] == 1
        self.socket.send(wire.pack(wire.MessageKind.HEARTBEAT, 1, 0, NOBODY, 0, 1, 0, 0, 0, 0, 0, 0))

    def kill(self, account: int, sequence: int = 7, action: int = 0) -> None:
        self.socket.send(wire.pack(EventKind.PARTICIPANTS_KILLED, sequence, 0, -1, 4, account, 0, 0, 0, 1, 0, action))

    def close(self) -> None:
        self.context.destroy(linger=0)


def armed(host: AgentHost, notices: Notices, agents: list[int]) -> dict[int, int]:
    """agent → pid of ten that stay; the switch is for `agents`."""
    host.spawn([(agent, {"do": "spin" if agent % 2 else "stay"}) for agent in range(10)])
    wait_until(lambda: host.status()["ready"] == 10, "ready")
    telling = threading.Thread(target=notices.tell_when_heard)
    telling.start()
    assert host.arm_kill_switch(notices.endpoint, agents) in ("SCHED_FIFO", "normal")
    telling.join()
    return {int(row["agent_id"]): int(row["pid"]) for row in host.rows()}


def test_all_are_killed_and_each_death_is_confirmed(host: AgentHost, notices: Notices) -> None:
    pids = armed(host, notices, list(range(10)))
    notices.kill(NOBODY)
    wait_until(lambda: bool(host.kills()), "the kill is told")
    (kill,) = host.kills()
    assert sorted(agent for agent, _ in kill["deaths"]) == list(range(10)) and not kill["alive"]
    assert kill["sequence"] == 7
    assert kill["heard_ns"] <= kill["signalled_ns"] <= min(at_ns for _, at_ns in kill["deaths"])
    assert not any(map(is_alive, pids.values()))
    assert {code for _, _, code in host.status()["exited"]} == {-signal.SIGKILL}


def test_one_is_killed_and_the_others_live_until_their_turn(host: AgentHost, notices: Notices) -> None:
    pids = armed(host, notices, list(range(8)))
    notices.kill(3, sequence=5)
    wait_until(lambda: len(host.kills()) == 1, "the first kill is told")
    assert [agent for agent, _ in host.kills()[0]["deaths"]] == [3]
    assert [agent for agent, pid in pids.items() if not is_alive(pid)] == [3]
    notices.kill(3, sequence=6)  # again, and one that is not this host's: nobody dies
    notices.kill(99, sequence=7)
    host.kill([4])  # ended before the order came
    notices.kill(NOBODY, sequence=8)
    wait_until(lambda: len(host.kills()) == 4, "all kills are told")
    assert [sorted(agent for agent, _ in kill["deaths"]) for kill in host.kills()] == [[3], [], [], [0, 1, 2, 5, 6, 7]]
    assert [agent for agent, pid in pids.items() if is_alive(pid)] == [8, 9]  # vendors, say: not participants


def test_those_of_one_vendor_are_killed(host: AgentHost, notices: Notices) -> None:
    pids = armed(host, notices, list(range(8)))
    host.name_vendors({agent: agent % 3 for agent in range(8)})
    notices.kill(2, action=BreakerAction.KILL_VENDOR)
    wait_until(lambda: len(host.kills()) == 1, "the kill is told")
    assert sorted(agent for agent, _ in host.kills()[0]["deaths"]) == [2, 5]
    assert [agent for agent, pid in pids.items() if not is_alive(pid)] == [2, 5]


def test_a_switch_is_armed_once(host: AgentHost, notices: Notices) -> None:
    armed(host, notices, [1])
    with pytest.raises(ValueError, match="armed already"):
        host.arm_kill_switch(notices.endpoint, [2])


def test_hundreds_of_kills_that_nobody_reads_do_not_stop_it(host: AgentHost, notices: Notices) -> None:
    pids = armed(host, notices, list(range(10)))
    for number in range(1500):
        notices.kill(1000 + number, sequence=number)
    notices.kill(NOBODY, sequence=2000)
    wait_until(lambda: not any(map(is_alive, pids.values())), "all are dead")
    wait_until(lambda: len(host.kills()) == 1501, "all is told")


def test_who_comes_again_is_watched_again_and_a_malformed_notice_is_none(host: AgentHost, notices: Notices) -> None:
    pids = armed(host, notices, list(range(10)))
    notices.socket.send(wire.subscription(EventKind.PARTICIPANTS_KILLED) + b"nonsense")
    host.kill([3])
    host.spawn([(3, {"do": "stay"})])
    wait_until(lambda: int(host.rows()["pid"][3]) != pids[3], "it has come again")
    again = int(host.rows()["pid"][3])
    notices.kill(NOBODY)
    wait_until(lambda: not is_alive(again), "the one that came again is dead")


def test_a_process_that_is_not_the_zygote_s_is_never_hit(host: AgentHost, notices: Notices) -> None:
    """As when an agent has ended and the system gave its pid to somebody else, before the switch looked."""
    armed_before = host.spawn([(1, {"do": "stay"})])
    assert armed_before == 1
    wait_until(lambda: host.status()["ready"] == 1, "ready")
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        host._pid_of[1] = bystander.pid
        telling = threading.Thread(target=notices.tell_when_heard)
        telling.start()
        host.arm_kill_switch(notices.endpoint, [1])
        telling.join()
        notices.kill(NOBODY)
        wait_until(lambda: len(host.kills()) == 1, "the kill is told")
        assert host.kills()[0]["deaths"] == [] and bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_switch_that_has_died_is_told(host: AgentHost, notices: Notices) -> None:
    armed(host, notices, [1])
    assert host._kill_switch is not None
    os.kill(host._kill_switch._process.pid, signal.SIGKILL)
    with pytest.raises(KillSwitchGone, match="has ended"):
        host.kills()


def test_the_venue_closes_the_sessions_of_whom_it_kills_and_refuses_them(tmp_path: Path) -> None:
    with running_venue(tmp_path, open_at_start=True) as venue:
        listener = venue.participant(2)
        for account in (0, 1):
            venue.endow(account)
        victim, other = venue.session(0), venue.session(1)
        victim.place(1, Side.BUY, 90, 5)
        victim.hear(EventKind.ORDER_ACCEPTED)
        assert venue.operator.request(CommandKind.KILL, 0, 0, 17).reason == 0
        assert victim.hear(EventKind.ORDER_CANCELLED).reason == Reason.KILLED
        assert victim.hear(wire.MessageKind.REFUSED).reason == Reason.IS_KILLED
        notice = None
        while notice is None or notice.kind != EventKind.PARTICIPANTS_KILLED:
            assert listener.public.poll(10_000)
            message = wire.unpack(listener.public.recv())
            notice = message if isinstance(message, wire.Notice) else None
        assert (notice.value, notice.quantity_lots, notice.threshold, notice.reason) == (0, 1, 1, Trigger.SUPERVISOR)
        victim.place(2, Side.BUY, 90, 5)
        assert victim.hear(wire.MessageKind.REFUSED).reason == Reason.NOT_LOGGED_ON
        assert victim.log_on(0).reason == Reason.IS_KILLED
        other.place(1, Side.BUY, 90, 5)
        assert other.hear(EventKind.ORDER_ACCEPTED)
        assert venue.operator.request(CommandKind.KILL, 0).reason == Reason.IS_KILLED
        assert venue.operator.request(CommandKind.HALT, 0, 0, 20).reason == 0
        assert venue.operator.request(CommandKind.HALT, 0, 0, 20).reason == Reason.HALTED
        # It stays dead when the venue comes back.
        venue.kill()
        venue.start()
        again = venue.connection()
        assert again.log_on(0).reason == Reason.IS_KILLED
        log_on_again(venue, 1)
        check_replay(venue, venue.stop())


def test_a_run_whose_breaker_kills_all_counts_them_and_loses_nobody(tmp_path: Path) -> None:
    arguments = small(**{"breaker.sell_volume_lots": "100", "breaker.action": "kill_all", "duration_s": "3"})
    summary = summary_of(aar(*arguments, "--out", tmp_path / "run", "--json"))
    assert summary["halted"] and summary["trades_after_trip"] == 0
    assert summary["killed_processes"] == 40 and summary["agent_processes_lost"] == 0
    assert 0 < summary["kill_to_last_signalled_ms"] < summary["kill_to_last_dead_ms"]
    notices = [json.loads(line) for line in (tmp_path / "run" / "notices.jsonl").read_text().splitlines()]
    killed = next(notice for notice in notices if notice["notice"] == "PARTICIPANTS_KILLED")
    halt = next(notice for notice in notices if notice["notice"] == "INSTRUMENT_HALTED")
    assert killed["participants"] == 40 and killed["sequence"] == halt["sequence"]
    assert len(halt["state_hash"]) == 32 and halt["state_hash"] == killed["state_hash"]
    assert halt["evidence"]["first_sequence"] <= halt["evidence"]["last_sequence"] == halt["sequence"]
    assert halt["action"] == "KILL_ALL"
