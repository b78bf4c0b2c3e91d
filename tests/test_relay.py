"""A host's relay: many accounts over one connection, each process's own, and what becomes of those that end or stop."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from cluster.relay import Relay, RelayGone, name_of_process
from exchange import wire
from exchange.types import EventKind, Reason
from tests.processes import is_alive, script, wait_until, wait_until_dead

pytestmark = pytest.mark.usefixtures("nothing_left")
TIMEOUT_MS = 10_000
LOG_OFF = wire.pack(wire.MessageKind.LOG_OFF)
SIGNAL = wire.subscription(EventKind.SIGNAL_PUBLISHED)


class Above:
    """The venue's sockets, as a relay sees them."""

    def __init__(self, place: Path) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        kinds = {"orders": zmq.ROUTER, "market_data": zmq.XPUB, "notices": zmq.XPUB}
        self.sockets = {name: self.context.socket(kind) for name, kind in kinds.items()}
        self.endpoints = {name: f"ipc://{place}/{name}" for name in kinds}
        self.relay = b""
        for name, socket in self.sockets.items():
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
            socket.bind(self.endpoints[name])

    def hear(self) -> tuple[int, bytes]:
        self.relay, account, message = self.sockets["orders"].recv_multipart()
        return wire.account_in(account), message

    def say(self, account: int, message: bytes) -> None:
        self.sockets["orders"].send_multipart([self.relay, wire.account_frame(account), message])


class Process:
    """A process of agents: one that does nothing, and the sockets that it would have."""

    def __init__(self, context: "zmq.Context[Any]", endpoints: dict[str, str], unread: int = 0) -> None:
        self.idle = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        self.orders = context.socket(zmq.DEALER)
        self.orders.setsockopt(zmq.ROUTING_ID, name_of_process(self.idle.pid))
        self.orders.setsockopt(zmq.RCVHWM, unread)
        self.public = context.socket(zmq.SUB)
        for socket in (self.orders, self.public):
            socket.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
        self.orders.connect(endpoints["orders"])
        for name in ("market_data", "notices"):
            self.public.connect(endpoints[name])

    def say(self, account: int, message: bytes) -> None:
        self.orders.send_multipart([wire.account_frame(account), message])

    def hear(self) -> tuple[int | None, bytes]:
        *frame, message = self.orders.recv_multipart()
        return (wire.account_in(frame[0]) if frame else None), message

    def end(self) -> None:
        self.idle.kill()
        self.idle.wait()


@pytest.fixture
def above(tmp_path: Path) -> Iterator[Above]:
    made = Above(tmp_path)
    yield made
    made.context.destroy(linger=0)


@pytest.fixture
def relay(above: Above, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    monkeypatch.setenv("AAR_TMP_DIR", str(tmp_path))
    made = Relay(above.endpoints, waiting=100)
    yield made
    made.close()


@pytest.fixture
def processes(above: Above, relay: Relay) -> Iterator[list[Process]]:
    made = [Process(above.context, relay.endpoints, unread) for unread in (0, 0, 1)]
    yield made
    for process in made:
        process.end()


def test_each_account_is_heard_and_answered_over_one_connection(above, relay, processes):
    for at, account in ((0, 3), (1, 70_000), (0, 4)):
        processes[at].say(account, b"from %d" % account)
        assert above.hear() == (account, b"from %d" % account)
    for account in (4, 70_000, 3):
        above.say(account, b"to %d" % account)
    assert [processes[0].hear(), processes[0].hear()] == [(4, b"to 4"), (3, b"to 3")]
    assert processes[1].hear() == (70_000, b"to 70000")
    said = relay.status()
    assert (said["to_venue"], said["from_venue"], said["processes"]) == (3, 3, 2)
    assert said["most_waiting"] >= 1 and said["longest_pass_ns"] > 0


def test_what_the_venue_says_to_the_connection_is_told_to_every_process(above, processes):
    for at in (0, 1):
        processes[at].say(at, b"hello")
        above.hear()
    above.sockets["orders"].send_multipart([above.relay, b"all sessions have ended"])
    assert [process.hear() for process in processes[:2]] == [(None, b"all sessions have ended")] * 2


def test_a_public_message_comes_once_a_host_to_all_who_listen(above, relay, processes):
    for process in processes[:2]:
        process.public.setsockopt(zmq.SUBSCRIBE, SIGNAL)
    assert above.sockets["notices"].recv() == b"\x01" + SIGNAL
    assert above.sockets["market_data"].recv() == b"\x01" + SIGNAL
    above.sockets["notices"].send(SIGNAL + b"!")
    assert processes[0].public.recv() == SIGNAL + b"!"
    # The second subscription may have come after that, but changes nothing for the venue.
    wait_until(lambda: _reaches(above, processes[1]), "the second process hears too")
    assert not above.sockets["notices"].poll(50)
    assert relay.status()["public"] >= 2


def _reaches(above: Above, process: Process) -> bool:
    above.sockets["notices"].send(SIGNAL + b"?")
    return bool(process.public.poll(20))


def test_nobody_speaks_for_another_process_s_account(above, relay, processes):
    processes[0].say(3, b"mine")
    above.hear()
    processes[1].say(3, b"stolen")
    processes[1].say(4, b"own")
    assert above.hear() == (4, b"own")
    above.say(3, b"answer")
    assert processes[0].hear() == (3, b"answer")


def test_who_has_no_name_of_a_living_process_is_not_heard(above, relay, processes):
    processes[2].end()
    processes[2].say(7, b"of the dead")
    nameless = above.context.socket(zmq.DEALER)
    nameless.connect(relay.endpoints["orders"])
    nameless.send_multipart([wire.account_frame(8), b"of nobody"])
    nameless.send(b"no frames")
    processes[0].say(9, b"of the living")
    assert above.hear() == (9, b"of the living")
    assert not above.sockets["orders"].poll(50)
    nameless.close(linger=0)


def test_the_accounts_of_a_process_that_ends_are_logged_off(above, relay, processes):
    for at, account in ((0, 3), (0, 4), (1, 5)):
        processes[at].say(account, b"hello")
        above.hear()
    processes[0].end()
    assert sorted(above.hear() for _ in range(2)) == [(3, LOG_OFF), (4, LOG_OFF)]
    assert relay.status()["accounts_logged_off"] == 2
    above.say(3, b"to the dead")  # is dropped, and nobody minds
    processes[1].say(3, b"it is free now")
    assert above.hear() == (3, b"it is free now")


def test_who_does_not_read_loses_its_sessions_and_nobody_waits_for_it(above, relay, processes):
    deaf, other = processes[2], processes[0]
    deaf.say(7, b"hello")
    other.say(8, b"hello")
    above.hear(), above.hear()
    sent = 0
    while not above.sockets["orders"].poll(0):  # until the pipes are full
        assert sent < 200_000
        above.say(7, b"x" * 200)
        sent += 1
    assert above.hear() == (7, LOG_OFF)
    above.say(8, b"in time")
    assert other.hear() == (8, b"in time")
    assert relay.status()["stopped_reading"] == 1
    heard = [deaf.hear()]
    while heard[-1][0] is not None:
        heard.append(deaf.hear())
    refused = wire.unpack(heard[-1][1])
    assert (refused.kind, refused.reason) == (wire.MessageKind.REFUSED, Reason.NOT_LOGGED_ON)
    assert len(heard) < sent


def test_its_sockets_are_its_user_s_alone_and_go_with_it(above, relay, tmp_path):
    directory = Path(relay.endpoints["orders"].removeprefix("ipc://")).parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    pid = relay.pid
    relay.close()
    assert not directory.exists() and not is_alive(pid)
    assert relay.status()["to_venue"] == 0
    relay.close()


def test_a_relay_that_died_is_told_of(relay):
    os.kill(relay.pid, signal.SIGKILL)
    wait_until_dead([relay.pid])
    with pytest.raises(RelayGone, match="has ended"):
        relay.status()


HOST = """
import json, sys
from cluster.relay import Relay
relay = Relay(json.loads(sys.argv[1]))
print(json.dumps(relay.pid), flush=True)
sys.stdin.read()
"""


def test_a_relay_goes_when_its_host_is_killed(above, tmp_path):
    with script("-c", HOST, json.dumps(above.endpoints), AAR_TMP_DIR=str(tmp_path)) as (host, pid):
        assert is_alive(pid)
        host.kill()
        wait_until_dead([pid])
