"""What the kernel counts of a process: the time with a core, and the time without one that it wanted."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from aar_swarm import starvation
from aar_swarm.starvation import ProcessWaits, StampedeWaits
from cluster.core_wait import CoreWait, Waited
from exchange import clock

ROOT = Path(__file__).resolve().parent.parent
COUNTED = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this kernel does not count waits for a core"
)

_TWO_ON_ONE_CORE = """
import os, sys
from cluster.core_wait import CoreWait
from exchange import clock
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
child = os.fork()
if child == 0:
    os.execv(sys.executable, [sys.executable, "-c", "while True: pass"])
waits = CoreWait()
before, begun = waits.read(), clock.monotonic_ns()
while clock.on_core_ns() - before.on_core_ns < 300_000_000:
    pass
now, took = waits.read(), clock.monotonic_ns() - begun
os.kill(child, 9)
os.waitpid(child, 0)
print(now.on_core_ns - before.on_core_ns, now.waited_ns - before.waited_ns, now.preempted - before.preempted, took)
"""


@COUNTED
def test_two_that_want_one_core_wait_for_each_other_and_it_is_all_accounted_for():
    done = subprocess.run(
        [sys.executable, "-c", _TWO_ON_ONE_CORE], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    on_core_ns, waited_ns, preempted, took_ns = map(int, done.stdout.split())
    assert on_core_ns >= 300 * clock.MS and preempted > 0
    assert waited_ns > 50 * clock.MS  # about as long as it ran, of a fair scheduler
    assert on_core_ns + waited_ns <= took_ns + 20 * clock.MS  # one thread is at most at one of them at a time


@COUNTED
def test_who_only_rests_waits_for_no_core():
    waits = CoreWait()
    before = waits.read()
    clock.sleep(0.2)
    now = waits.read()
    assert before is not None and now is not None
    assert now.on_core_ns - before.on_core_ns < 100 * clock.MS
    assert 0 <= now.others_waited_ns <= now.waited_ns


def test_where_the_kernel_does_not_count_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "open", refuse)
    assert CoreWait().read() is None


def _row() -> np.void:
    return np.zeros(1, [(name, "i8") for name in starvation.FIELDS])[0]


def test_an_agent_notes_its_waits_from_its_last_rest_to_its_first_order_and_its_answer(monkeypatch: pytest.MonkeyPatch):
    readings = iter(
        [
            Waited(10, 100, 40, 1),  # at rest, and once more
            Waited(20, 200, 50, 1),
            Waited(27, 260, 70, 4),  # the first order is sent
            Waited(30, 300, 95, 4),  # its answer is heard
            Waited(90, 900, 200, 9),  # the close
        ]
    )
    monkeypatch.setattr(starvation, "CoreWait", lambda: SimpleNamespace(read=lambda: next(readings)))
    process, row = ProcessWaits(), _row()
    waits = StampedeWaits(row, process)
    process.before_rest()
    process.before_rest()
    waits.on_answer()  # to an order from before the signal: nothing is read
    waits.on_first_order()
    waits.on_answer()
    waits.on_answer()  # later ones say nothing of the first
    waits.on_close()
    assert dict(zip(starvation.FIELDS, row.item(), strict=True)) == {
        "waits_known": 1,
        "stampede_on_core_ns": 7,
        "stampede_waited_ns": 60,
        "stampede_preempted": 3,
        "sending_waited_ns": 25,
        "session_waited_ns": 700,
    }


def test_an_agent_that_cannot_know_leaves_its_row_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(starvation, "CoreWait", lambda: SimpleNamespace(read=lambda: None))
    process, row = ProcessWaits(), _row()
    waits = StampedeWaits(row, process)
    process.before_rest()
    waits.on_first_order()
    waits.on_answer()
    waits.on_close()
    assert set(row.item()) == {0}
