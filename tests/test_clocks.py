"""Clocks of hosts against the venue's: what pings tell, and what follows for a host."""

import multiprocessing
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aar_swarm.analysis.host_clocks import host_clocks, kills_on_venue_clock, rows_on_venue_clock
from aar_swarm.analysis.tables import latency_table
from cluster.clocks import PINGS, HostClock, Reading, Responder, boot_id, host_clock, largest_bound_ns, measure, reading
from cluster.kill_switch import Kill
from exchange import clock
from exchange.clock import MS
from exchange.loop import TIMING
from exchange.types import COMMAND, CommandKind
from tests.hand_made import board

ROOT = Path(__file__).resolve().parent.parent
SHIFT_NS = 37 * clock.SECOND + 12_345


def _shifted() -> int:
    return clock.monotonic_ns() + SHIFT_NS


def _serve_shifted(pipe: Connection) -> None:
    """A venue's node whose clock is ahead."""
    responder = Responder("127.0.0.1", _shifted)
    pipe.send((responder.address, responder.token))
    pipe.recv()
    responder.close()


def test_the_offset_to_another_process_with_a_shifted_clock_is_found_within_its_bound():
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve_shifted, args=(there,))
    process.start()
    try:
        address, token = here.recv()
        before, after = measure(address, token), measure(address, token)
        assert before.pings == PINGS >= 128
        found = host_clock(before, after, same_kernel=False)
        assert found["bound_ns"] is not None and found["bound_ns"] > 0
        assert abs(found["offset_ns"] - SHIFT_NS) <= found["bound_ns"]
        assert found["smallest_rtt_ns"] == min(before.smallest_rtt_ns, after.smallest_rtt_ns)
        # On one kernel such an offset is impossible: the equal boot_id is not believed.
        assert host_clock(before, after, same_kernel=True)["offset_ns"] == found["offset_ns"]
    finally:
        here.send(None)
        process.join()


_NAMESPACED = """
from cluster.clocks import Responder, boot_id
responder = Responder("127.0.0.1")
print(*responder.address, responder.token.hex(), boot_id(), flush=True)
input()
responder.close()
"""


def test_a_time_namespace_is_not_taken_for_the_same_clock():
    """A real CLOCK_MONOTONIC that is ahead by 5,000 s, on this kernel: its boot_id says the contrary."""
    enter = ["unshare", "--time", "--monotonic", "5000", "--fork"]
    if subprocess.run([*enter, "true"], check=False, capture_output=True).returncode:
        pytest.skip("time namespaces need root, Linux 5.6 and util-linux 2.36")
    command = [*enter, sys.executable, "-c", _NAMESPACED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        host, port, token, venue_boot_id = process.stdout.readline().split()
        readings = [measure((host, int(port)), bytes.fromhex(token)) for _ in range(2)]
        process.communicate("\n")
    assert venue_boot_id == boot_id()
    found = host_clock(*readings, same_kernel=True)
    assert found["bound_ns"] is not None and found["bound_ns"] > 0
    assert abs(found["offset_ns"] - 5000 * clock.SECOND) <= found["bound_ns"]


def test_on_one_kernel_the_clock_is_one_and_the_measured_offset_is_the_method_s_error():
    responder = Responder("127.0.0.1")
    try:
        readings = [measure(responder.address, responder.token) for _ in range(2)]
    finally:
        responder.close()
    found = host_clock(*readings, same_kernel=True)
    assert (found["offset_ns"], found["bound_ns"]) == (0, 0)
    assert found["measured_offset_ns"] is not None and found["smallest_rtt_ns"] is not None
    assert all(abs(each.offset_ns) <= each.smallest_rtt_ns for each in readings)
    assert found["pings"] == 2 * PINGS


def test_nothing_is_told_without_the_token_and_nothing_is_left_listening():
    responder = Responder("127.0.0.1")
    with pytest.raises(OSError):
        measure(responder.address, bytes(len(responder.token)))
    assert measure(responder.address, responder.token, pings=1).pings == 1  # the next one is served
    responder.close()
    with pytest.raises(OSError):
        socket.create_connection(responder.address, timeout=1)


DELAYS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=20, max_size=40)


@given(offset_ns=st.integers(-(10**12), 10**12), delays_ns=DELAYS)
def test_no_ping_s_offset_is_wrong_by_more_than_half_of_its_round_trip(offset_ns, delays_ns):
    sent = np.arange(len(delays_ns)) * 100_000
    there, back = np.array(delays_ns).T
    received = sent + there + offset_ns
    stamps = np.stack([sent, received, received + 500, received + 500 - offset_ns + back], axis=1)
    found = reading(stamps)
    assert found.smallest_rtt_ns == (there + back).min()
    kept = np.sort(there + back)[:8]
    assert abs(found.offset_ns - offset_ns) <= kept.max() / 2 + 1


def test_slow_pings_are_left_out():
    stamps = np.array([(0, 1_000_050, 1_000_050, 100)] * 10 + [(0, 1_900_000, 1_900_000, 900_000)] * 90)
    assert reading(stamps) == Reading(1_000_000, 100, 100)  # the slow ones, all one way, would say 1,450,000


def test_asymmetry_cannot_be_seen_and_the_bound_covers_it():
    stamps = np.array([(0, 5_000 + 900, 5_000 + 900, 1_000)] * 10)  # 900 there, 100 back
    found = host_clock(reading(stamps), reading(stamps), same_kernel=False)
    assert found["offset_ns"] == 5_400 and found["bound_ns"] == 500


def test_drift_widens_the_bound_and_what_was_not_measured_has_none():
    before, after = Reading(1_000, 200, 128), Reading(1_300, 180, 128)
    found = host_clock(before, after, same_kernel=False)
    assert found == HostClock(
        offset_ns=1_150, bound_ns=100 + 300, smallest_rtt_ns=180, pings=256, drift_ns=300, measured_offset_ns=1_150
    )
    alone = host_clock(before, None, same_kernel=False)
    assert (alone["offset_ns"], alone["bound_ns"], alone["drift_ns"]) == (1_000, None, None)
    silent = host_clock(None, None, same_kernel=False)
    assert silent["bound_ns"] is None and silent["measured_offset_ns"] is None
    assert host_clock(None, None, same_kernel=True)["bound_ns"] == 0
    assert largest_bound_ns([found, host_clock(before, before, same_kernel=False)]) == 400
    assert largest_bound_ns([found, alone]) is None
    assert largest_bound_ns([]) == 0


def _manifest(bound_ns: int | None = 0) -> dict[str, object]:
    """Two agents on the venue's kernel, three on another host, whose clock is 7 ms behind."""
    one = host_clock(Reading(3, 50, 128), Reading(1, 50, 128), same_kernel=True)
    other = host_clock(Reading(7 * MS, 400, 128), Reading(7 * MS, 400, 128), same_kernel=False)
    hosts = [{"agents": [0, 2], "clock": one}, {"agents": [2, 5], "clock": other}]
    return {"clock_bound_ns": bound_ns, "hosts": hosts}


def test_times_are_put_on_the_venue_s_clock():
    clocks = host_clocks(_manifest(), 5)
    assert clocks.offset_ns.tolist() == [0, 0, 7 * MS, 7 * MS, 7 * MS]
    assert clocks.base_rtt_ns.tolist() == [0, 0, 400, 400, 400]
    rows = board({}, 5)
    rows["signal_heard_ns"] = [10, 0, 10, 0, 10]
    moved = rows_on_venue_clock(rows, clocks)
    assert moved["signal_heard_ns"].tolist() == [10, 0, 10 + 7 * MS, 0, 10 + 7 * MS]
    assert rows["signal_heard_ns"].tolist() == [10, 0, 10, 0, 10]
    kill = Kill(sequence=1, heard_ns=1, signalled_ns=2, deaths=[(3, 4)], alive=[])
    assert kills_on_venue_clock([kill], clocks)[0]["deaths"] == [(3, 4 + 7 * MS)]


def test_transit_is_corrected_by_the_host_s_offset():
    commands = np.zeros(2, COMMAND)
    commands["kind"], commands["account"] = CommandKind.PLACE_ORDER, [1, 3]
    commands["heard_ns"], commands["sent_ns"], commands["received_ns"] = 1 * MS, 2 * MS, [3 * MS, 10 * MS]
    timings = np.zeros(2, TIMING)
    timings["arrived_ns"] = commands["received_ns"]
    found = latency_table(commands, timings, host_clocks(_manifest(), 5).offset_ns)
    assert found["transit_ns"].to_list() == [MS, MS]
    assert found["decision_ns"].to_list() == [MS, MS]  # a difference of one clock


def test_two_agents_are_as_far_apart_as_both_hosts_clocks_may_be_wrong():
    clocks = host_clocks(_manifest(), 5)
    pairs = np.array([(0, 1), (0, 2), (2, 4)]).T
    assert clocks.pair_bound_ns(*pairs).tolist() == [0, 200, 0]
    old = host_clocks({"clock_bound_ns": None, "hosts": [{}, {}]}, 5)  # a run from before clocks were measured
    assert old.pair_bound_ns(*pairs).tolist() == [-1, -1, -1]
    assert host_clocks({"clock_bound_ns": 0, "hosts": [{}]}, 5).pair_bound_ns(*pairs).tolist() == [0, 0, 0]
