"""What lets a study of many runs go on where it was interrupted: which runs are there, and whose directory it is.

A run counts as made when its manifest has the very settings that would be asked for now; nothing else is remembered.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aar_swarm.results import JOURNAL, MANIFEST, SUMMARY, Run, read_json
from aar_swarm.runner import prepare
from aar_swarm.versions import versions
from exchange.errors import ConfigurationError


def finished(
    directory: Path, scenario: str, seed: int, arguments: Mapping[str, Any], address: str | None
) -> Run | None:
    """The run in a directory, if there is one, finished and made with the same settings.

    Args: arguments: of `prepare`, beside the scenario, the seed and the address.
    """
    if not (directory / SUMMARY).is_file():
        return None
    try:
        manifest, _ = read_json(directory / MANIFEST), read_json(directory / SUMMARY)
    except ConfigurationError:  # killed while it wrote
        return None
    chosen, agents = prepare(scenario, seed=seed, address=address, **arguments)
    resolved = json.loads(json.dumps(chosen.model_dump()))
    names = ("scenario", "agents", "seed", "versions")
    same = [manifest.get(name) for name in names] == [resolved, agents, seed, versions()]
    return Run(directory) if same else None


def clear(directory: Path) -> None:
    """Remove what an unfinished run, or one of other settings, left. Raises: ConfigurationError: it is no run's."""
    if not directory.exists():
        return
    if not (directory / JOURNAL).is_dir() and any(directory.iterdir()):
        raise ConfigurationError(f"{directory}: is in the way and not a run's; move it elsewhere")
    shutil.rmtree(directory)


@contextmanager
def studied_by_one(directory: Path) -> Iterator[None]:
    """Two that go on with one study would take each other's unfinished runs for remains.

    Raises: ConfigurationError: another has it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"--out {directory}: this study is under way; wait for it") from None
        yield
    finally:
        os.close(descriptor)
