"""Throw garbage, truncated, oversized and mutated frames at a venue, as many as asked for.

    python scripts/fuzz_frames.py --frames 1000000 --seed 1

Every frame must be refused, answered or become a command, and what was refused must change nothing. Exit status 1 if
not, with the seed that repeats it.
"""

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

# The tests are not installed; this is how they are found.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.frame_fuzz import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None, help="by default a new one")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="aar-fuzz-") as directory:
        try:
            results = fuzz(Path(directory), options.frames, seed)
        except AssertionError as failure:
            print(f"{failure}\nrepeat with: python scripts/fuzz_frames.py --seed {seed} --frames {options.frames}")
            return 1
    for name, figures in zip(("without a session", "with sessions"), results, strict=True):
        print(
            f"{name}: {figures.sent} frames: {figures.refused} refused, {figures.commands} commands, "
            f"{figures.requests} requests; {figures.cut} connections cut"
        )
    print(f"{time.perf_counter() - began:.0f} s, all accounted for")
    return 0


if __name__ == "__main__":
    sys.exit(main())
