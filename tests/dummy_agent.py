"""Agents without a market, for the tests of what starts and ends processes; and modules' worth of misbehaviour."""

import errno
import os
import signal
import time
from typing import Any

import numpy as np

from cluster.scoreboard import BASE_FIELDS, AgentState

FIELDS = [*BASE_FIELDS, ("value", "i8"), ("descriptor_count", "i8")]


def run(agent_id: int, spec: dict[str, Any], row: np.ndarray) -> int | None:
    """Do what spec["do"] names."""
    row["value"] = spec.get("value", 0)
    row["state"] = AgentState.READY
    match spec["do"]:
        case "finish":
            return spec.get("code")
        case "stay":
            while True:
                signal.pause()
        case "spin":
            while True:
                pass
        case "pause":
            time.sleep(spec["seconds"])
        case "crash":
            raise ValueError(f"agent {agent_id} was told to crash")
        case "exit":
            raise SystemExit(spec["code"])
        case "count_descriptors" | "count_descriptors_and_stay":
            row["descriptor_count"] = len(os.listdir("/proc/self/fd")) - 1  # one is the listing's own
            if spec["do"].endswith("stay"):
                signal.pause()
    return None


def spoil_third_fork() -> None:
    """Make this process's third fork fail as if there were too many processes."""
    fork, calls = os.fork, iter(range(1 << 30))

    def limited() -> int:
        if next(calls) == 2:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    os.fork = limited


def signal_newborns() -> None:
    """Send SIGTERM to every process that this one forks, as early as can be."""
    fork = os.fork

    def signalled() -> int:
        pid = fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return pid

    os.fork = signalled
