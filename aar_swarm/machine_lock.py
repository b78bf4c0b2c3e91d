"""Runs never share a machine unless asked: the timings of each would contain the other's load.

Owns the lock: one file a user, locked by whom the machine belongs to now. The kernel gives it back when its holder
ends, however it ends; the file stays, and means nothing by itself.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aar_swarm.progress import Progress
from exchange import clock
from exchange.errors import ConfigurationError

_POLL_S = 0.1


@contextmanager
def machine_to_itself(progress: Progress) -> Iterator[None]:
    """Hold this user's lock on this machine; wait for it, saying so, while another run has it.

    Raises: ConfigurationError: the file cannot be had, or is not ours.
    """
    path = Path(tempfile.gettempdir()) / f"aar-machine-{os.getuid()}.lock"
    try:
        # Not through a link that somebody laid there. The descriptor is closed in whatever this process starts.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; remove it, or use --alongside") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise ConfigurationError(f"{path}: is not a file of this user; remove it, or use --alongside")
        if not _taken(descriptor):
            progress.stage("waiting for another run to end (--alongside: share the machine with it)")
            while not _taken(descriptor):
                clock.sleep(_POLL_S)  # a flock that waits is not sure to hear Ctrl-C
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Take the lock if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
