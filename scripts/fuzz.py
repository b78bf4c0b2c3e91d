"""Compare the engine with the oracle on as many random commands as asked for.

    python scripts/fuzz.py --commands 1000000 --seed 1

Exit status 1 on a difference, with the seed that repeats it. Should the process itself die, the engine wrote outside
its arrays: with NUMBA_BOUNDSCHECK=1 that becomes an exception, and the seed is printed.
"""

import argparse
import sys
import time
from pathlib import Path

# The tests are not installed; this is how they are found.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.comparison import compare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=100_000, help="at least how many, over all seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; the following runs use the next ones")
    parser.add_argument("--run", type=int, default=2_000, help="commands in the run of one seed")
    parser.add_argument("--money", action="store_true", help="venues and sessions of docs/money.md")
    options = parser.parse_args()
    done, events, seed = 0, 0, options.seed
    started = reported = time.perf_counter()
    while done < options.commands:
        count = min(options.run, options.commands - done)
        repeat = f"python scripts/fuzz.py --seed {seed} --commands {count} --run {count}"
        repeat += " --money" if options.money else ""
        try:
            report = compare(seed, count, options.money)
        except BaseException:
            print(f"seed {seed} did not finish; repeat with: {repeat}", file=sys.stderr, flush=True)
            raise
        if report.difference:
            print(report.difference)
            print(f"repeat with: {repeat}")
            return 1
        done, events, seed = done + count, events + report.events, seed + 1
        now = time.perf_counter()
        if now - reported > 5 or done >= options.commands:
            print(
                f"seed {report.seed}: {done} commands, {events} events, {done / (now - started):.0f} commands/s, equal"
            )
            reported = now
    return 0


if __name__ == "__main__":
    sys.exit(main())
