"""Who keeps the session's time is scheduled before the agents."""

import os
import subprocess
import sys

import pytest

PROBE = """
import os, resource, sys, threading
from cluster.priority import LOWEST, before_agents

def classes():
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}

# whoever may not: another user without the limit that would permit it
if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    if os.getuid() == 0:
        os.setuid(65534)

def parked():
    threading.Thread(target=threading.Event().wait, daemon=True).start()

parked()
before = classes()
with before_agents():
    parked()  # one that begins later belongs to it as well
    during = classes()
print(before == {os.SCHED_OTHER}, during, classes() == {os.SCHED_OTHER}, len(os.listdir("/proc/self/task")))
"""


def probed(*arguments: str) -> list[str]:
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.replace("{", "").replace("}", "").split()


def test_every_thread_goes_before_the_agents_and_is_ordinary_again() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("no real-time priority is permitted here")
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    assert probed() == ["True", str(os.SCHED_FIFO), "True", "3"]


def test_where_it_is_not_permitted_everything_stays_as_it_is() -> None:
    assert probed("unprivileged") == ["True", str(os.SCHED_OTHER), "True", "3"]
