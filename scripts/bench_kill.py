"""SIGKILL the driver in the middle of a run, and see how long any process of the run lives.

    python scripts/bench_kill.py --agents 1000 [--json]

Looks every 20 ms for processes that carry the run's mark in their environment (all that a run starts do, Ray's own and
forked agents too). The mark is this script's: it is inherited by everything.
"""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def alive(mark: bytes) -> list[int]:
    """Processes that carry the mark and are more than zombies, other than this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    found.append(int(folder.name))
        except OSError:
            continue
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    name, value = "AAR_BENCH_KILL", secrets.token_hex(8)
    mark = f"{name}={value}".encode()
    with tempfile.TemporaryDirectory(prefix="aar-bench-") as place:
        directory = Path(place) / "run"
        driver = subprocess.Popen(
            [sys.executable, "-m", "aar_swarm.cli", "run", "exit-door", "--agents", str(asked.agents)]
            + ["--out", str(directory), "--set", "duration_s=120", "--set", "signal.at_s=100"],
            env={**os.environ, name: value},
            stderr=subprocess.DEVNULL,
        )
        while not (directory / "manifest.json").is_file():
            if driver.poll() is not None:
                print("the run ended before it could be killed", file=sys.stderr)
                return 1
            time.sleep(0.1)
        time.sleep(2.0)  # into the session
        before = len(alive(mark))
        driver.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        driver.wait()
        counts = {}
        deadline = killed + 30
        while (left := len(alive(mark))) and time.monotonic() < deadline:
            counts[round(time.monotonic() - killed, 2)] = left
            time.sleep(0.02)
        gone_s = time.monotonic() - killed
    result = {
        "agents": asked.agents,
        "cores": os.cpu_count(),
        "processes_before": before,
        "processes_left": left,
        "all_gone_after_s": round(gone_s, 2) if not left else None,
        "alive_at_s": counts,
    }
    print(json.dumps(result) if asked.json else "\n".join(f"{key:20} {value}" for key, value in result.items()))
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
