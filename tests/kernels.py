"""Compile before the tests what they share, once: numba's cache on the disk gives it to every process after that.

Two parts, as what needs only the engine need not wait for the event loop. Whoever comes first compiles, in a process of
its own; whoever comes meanwhile waits, as compiling the same beside it would take both twice as long.
"""

import fcntl
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

_HERE = Path(__file__).resolve()


def compile_engine() -> None:
    """What tests of the engine, of replays, of recoveries and of a supervisor's twin call."""
    import numpy as np

    from exchange.config import SupervisionConfig
    from exchange.engine import events_bound
    from exchange.indicators import follow, new_watch
    from exchange.replay import Follower, replay
    from exchange.types import COMMAND, EVENT
    from tests.venues import engine

    Follower(engine())
    nothing = np.zeros(0, COMMAND)
    state = replay(engine(), nothing).engine.state
    watch = new_watch(SupervisionConfig(imbalance_bps=1), state)
    follow(state, watch, nothing, 0, np.zeros(events_bound(state), EVENT))


def compile_venue() -> None:
    """What a venue's process compiles, and what makes the tables of a run."""
    from aar_swarm.analysis.tables import trace_tops
    from exchange import journal
    from tests.venues import running_venue

    with TemporaryDirectory() as directory, running_venue(Path(directory), open_at_start=True) as venue:
        venue.stop()
        trace_tops(journal.read(venue.config.directory))


_PARTS = {"engine": compile_engine, "venue": compile_venue}


@cache
def compiled(part: str) -> None:
    """Return once a part is compiled. If it does not compile, the tests that need it will say why."""
    with (_HERE if part == "engine" else _HERE.parent / "venues.py").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if part == "venue":
            compiled("engine")
        subprocess.run([sys.executable, "-m", "tests.kernels", part], cwd=_HERE.parent.parent, check=False)


if __name__ == "__main__":
    _PARTS[sys.argv[1]]()
