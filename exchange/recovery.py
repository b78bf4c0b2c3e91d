"""Recovery: from what a venue left on the disk to an engine that goes on where it ended.

Owns the decision what of a damaged directory may be gone on with: a torn tail was never acknowledged, so it is cut;
damage anywhere else is refused, because what it held was.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from exchange import journal, snapshots
from exchange.config import EngineConfig
from exchange.engine import Engine
from exchange.errors import ConfigurationError, JournalError, TornJournalError
from exchange.replay import Follower
from exchange.state import Array


class Recovered(NamedTuple):
    engine: Engine
    next_sequence: int
    check: int
    """Of the last command: what journal.Writer goes on from."""
    last_ns: int
    """received_ns of the last command: the venue's clock must not go behind it."""
    events: int
    """How many, ever."""
    events_digest: int
    """Over all of them."""
    recent: Array  # EVENT[r]: the last ones, at most replay.RECENT_EVENTS, oldest first
    warnings: list[str]
    """What was cut or passed over, with the file and the byte."""
    commands_replayed: int


def recover(directory: Path, config: EngineConfig) -> Recovered:
    """The newest sound snapshot and the journal's tail behind it, in an engine; without a journal a new engine.

    A torn tail is cut off the file, with a warning. One segment at a time is in memory.
    Raises: JournalError: damaged in the middle, or a part is missing; ConfigurationError: the journal is of another
    configuration (names the setting), or another venue is writing it; OSError.
    """
    descriptor = journal.lock(directory)
    try:
        return _recover(directory, config)
    finally:
        os.close(descriptor)


def _recover(directory: Path, config: EngineConfig) -> Recovered:
    warnings: list[str] = []
    for unfinished in directory.glob("*.unfinished"):  # a snapshot that a kill interrupted
        unfinished.unlink(missing_ok=True)
    paths = journal.segments(directory)
    if not paths and (left := snapshots.snapshots(directory)):
        raise JournalError(f"{left[-1]}: is of a journal that is missing; bring it back, or name another directory")
    if paths:
        journal.check_first(paths[0])
        try:
            journal.read_header(paths[-1], last=True)
        except TornJournalError as torn:
            # Even its name says only that the segment before had ended.
            paths.pop().unlink()
            warnings.append(f"{torn}; the file was removed")
    if not paths:
        return _recovered(Follower(config), config, warnings, 0)
    _check_configuration(paths[0], config)
    follower, saved, passed_over = snapshots.begin(directory, config, paths)
    warnings += passed_over
    for part in snapshots.follow_segments(follower, paths):
        if part.torn:
            size = part.path.stat().st_size
            _cut(part.path, part.end)
            warnings.append(
                f"{part.path}: was never wholly written from record {part.next_sequence} at byte {part.end} on; "
                f"the {size - part.end} bytes from there were cut"
            )
    return _recovered(follower, config, warnings, follower.sequence - saved)


def _recovered(follower: Follower, config: EngineConfig, warnings: list[str], replayed: int) -> Recovered:
    return Recovered(
        follower.engine,
        follower.sequence + 1,
        journal.first_check(config) if follower.check is None else follower.check,
        follower.last_ns,
        follower.events,
        follower.events_digest,
        follower.recent(),
        warnings,
        replayed,
    )


def _cut(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_configuration(path: Path, config: EngineConfig) -> None:
    header = journal.read_header(path)
    differs = _difference("", header.config.model_dump(mode="json"), config.model_dump(mode="json"))
    if differs:
        raise ConfigurationError(f"{path}: the journal is of another configuration: {differs}; name another directory")


def _difference(name: str, journaled: Any, wanted: Any) -> str:
    """The first setting that differs, in words, or nothing."""
    if journaled == wanted:
        return ""
    if isinstance(journaled, dict) and isinstance(wanted, dict):
        for key in journaled:
            if found := _difference(f"{name}.{key}" if name else key, journaled[key], wanted[key]):
                return found
    if isinstance(journaled, list) and isinstance(wanted, list):
        if len(journaled) != len(wanted):
            return f"it has {len(journaled)} {name} and this one {len(wanted)}"
        for number, (its, mine) in enumerate(zip(journaled, wanted, strict=True)):
            if found := _difference(f"{name}.{number}", its, mine):
                return found
    return f"{name} is {journaled} there and {wanted} here"
