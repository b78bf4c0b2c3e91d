"""In place of `aar` in tests of sweeps: leaves what a run leaves, or fails as its seed says.

Seeds: 13 fails, 14 takes for ever, 15 leaves half a run, 16 dies. Each start is a line of the file that DUMMY_TRIALS
names: the cores it may use, and its seed.
"""

import json
import os
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    options = dict(zip(arguments[2::2], arguments[3::2], strict=False))
    seed, out = int(options["--seed"]), Path(options["--out"])
    leaked = sorted(name for name in os.environ if name.startswith("RAY_"))
    with open(os.environ["DUMMY_TRIALS"], "a") as log:
        log.write(json.dumps({"seed": seed, "cores": sorted(os.sched_getaffinity(0)), "leaked": leaked}) + "\n")
    if seed == 13:
        print("aar: thirteen is refused", file=sys.stderr)
        return 2
    if seed == 16:
        os.kill(os.getpid(), 9)
    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.json").write_text(json.dumps({"seed": seed, "agents": 10}))
    if seed == 14:
        time.sleep(600)
    if seed == 15:
        return 0
    time.sleep(float(os.environ.get("DUMMY_TRIAL_S", "0")))
    settings = [arguments[at + 1] for at, word in enumerate(arguments) if word == "--set"]
    found = {"seed": seed, "trades": 10 * seed, "trip": None if seed % 2 else {"observed": seed}, "told": settings}
    (out / "summary.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
