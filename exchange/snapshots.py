"""Snapshots: the engine's whole state as of one command, so that a start need not replay the whole journal.

Owns the layout of a snapshot's file and the process that makes snapshots beside the live venue, by replay. A snapshot
is worth nothing by itself: it only saves time, and one that is not sound is passed over. Layout, little-endian:

    8 bytes   magic b"AARSNAP1"
    8 bytes   length of the header in bytes
    header    JSON: config, meta, arrays (name, dtype, shape)
    arrays    each: 8 bytes length, then as many of a zlib stream
    32 bytes  BLAKE2b over all that is before
"""

import ctypes
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from exchange import journal
from exchange.config import EngineConfig
from exchange.errors import JournalError
from exchange.replay import RECENT_EVENTS, Follower
from exchange.state import Array, State, new_state
from exchange.types import EVENT

MAGIC = b"AARSNAP1"
SUFFIX = ".snapshot"
KEPT = 2
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be
_NAME = re.compile(r"\d{12,}\.snapshot")
_PREFIX_BYTES = 16
_DIGEST_BYTES = 32


class SnapshotError(RuntimeError):
    """A snapshot that cannot be used: damaged, or of another configuration or version."""


class Meta(NamedTuple):
    """Where in the journal a state is, and what was counted up to there."""

    sequence: int  # of the last command
    check: int  # that command's
    last_ns: int  # its received_ns
    events: int  # how many, ever
    events_digest: int  # over all of them, signed 64 bits


class Snapshot(NamedTuple):
    path: Path
    meta: Meta
    state: State
    recent: Array  # EVENT[r]: the last events, oldest first


def _check_of(config: EngineConfig) -> str:
    return format(journal.first_check(config) & (1 << 64) - 1, "016x")


def _layout(name: str, array: Array) -> dict[str, Any]:
    fields = array.dtype.descr if array.dtype.names else array.dtype.str
    return {"name": name, "dtype": json.loads(json.dumps(fields)), "shape": list(array.shape)}


def _encode(array: Array) -> Iterator[bytes]:
    """The array as bytes: the length of what follows, then its content, compressed."""
    # Measured at 22 MB of state: level 1 makes it 7 times smaller than leaving out empty pages does, in 0.1 s.
    content = zlib.compress(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, 1)
    yield len(content).to_bytes(8, "little")
    yield content


def _decode(raw: Array, at: int, array: Array) -> int:
    """Fill an array from `raw` at `at`; returns where it ends. Raises: SnapshotError: it does not fit."""
    size = int.from_bytes(raw[at : at + 8].tobytes(), "little")
    at += 8
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(raw[at : at + size].data, array.nbytes + 1)
    except zlib.error as error:
        raise SnapshotError(f"is damaged: {error}") from None
    if len(content) != array.nbytes:
        raise SnapshotError("is damaged: an array is not of its size")
    array.reshape(-1).view(np.uint8)[:] = np.frombuffer(content, np.uint8)
    return at + size


def snapshots(directory: Path) -> list[Path]:
    """The snapshots' files, oldest first."""
    found = [path for path in directory.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.split(".")[0]))


def write(directory: Path, config: EngineConfig, state: State, meta: Meta, recent: Array) -> Path:
    """Write a snapshot, whole or not at all, and remove those that it makes needless.

    Args: recent: EVENT[min(meta.events, RECENT_EVENTS)], the last events, oldest first.
    Raises: OSError: a full disk; nothing has changed then.
    """
    if len(recent) != min(meta.events, RECENT_EVENTS):
        raise ValueError(f"{len(recent)} recent events of {meta.events}")
    arrays = {**state._asdict(), "recent": recent}
    header = json.dumps(
        {
            "config": _check_of(config),
            "meta": meta._asdict(),
            "arrays": [_layout(name, array) for name, array in arrays.items()],
        }
    ).encode()
    path = directory / f"{meta.sequence:012d}{SUFFIX}"
    unfinished = path.with_suffix(".unfinished")
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    try:
        with unfinished.open("wb") as file:

            def put(part: bytes) -> None:
                digest.update(part)
                file.write(part)

            put(MAGIC + len(header).to_bytes(8, "little") + header)
            for array in arrays.values():
                for part in _encode(array):
                    put(part)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    there = snapshots(directory)
    # Those of later commands are of another journal, or of a part of this one that was lost: they never fit again.
    kept = there[: there.index(path) + 1][-KEPT:]
    for other in there:
        if other not in kept:
            other.unlink(missing_ok=True)
    return path


def load(path: Path, config: EngineConfig) -> Snapshot:
    """Read and verify a snapshot.

    Raises: SnapshotError: unreadable, damaged, of another configuration, or of another version's layout.
    """
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror}") from None
    try:
        return _load(path, raw, config)
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error}") from None


def _load(path: Path, raw: Array, config: EngineConfig) -> Snapshot:
    if raw[:8].tobytes() != MAGIC:
        raise SnapshotError("is not a snapshot of this version")
    body, said_digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:].tobytes()
    if len(raw) < _PREFIX_BYTES + _DIGEST_BYTES or hashlib.blake2b(body.data, digest_size=32).digest() != said_digest:
        raise SnapshotError("is damaged: its digest is not that of its content")
    at = _PREFIX_BYTES + int.from_bytes(raw[8:16].tobytes(), "little")
    try:
        header = json.loads(raw[_PREFIX_BYTES:at].tobytes())
        if header["config"] != _check_of(config):
            raise SnapshotError("is of another configuration")
        layout = header["arrays"]
        recent = np.zeros(int(layout[-1]["shape"][0]), EVENT)
        meta = Meta(**header["meta"])
    except (ValueError, KeyError, TypeError, IndexError):
        raise SnapshotError("is of another version of the engine") from None
    state = new_state(config)  # for its shapes
    arrays = {**state._asdict(), "recent": recent}
    if [_layout(name, array) for name, array in arrays.items()] != layout:
        raise SnapshotError("is of another version of the engine: its arrays are laid out differently")
    for array in arrays.values():
        at = _decode(body, at, array)
    if at != len(body) or len(recent) != min(meta.events, RECENT_EVENTS):
        raise SnapshotError("is damaged: it its parts do not fit each other")
    return Snapshot(path, meta, state, recent)


def latest(
    directory: Path, config: EngineConfig, agrees: Callable[[Meta], bool] | None = None
) -> tuple[Snapshot | None, list[str]]:
    """The newest snapshot that is sound and, where given, `agrees` with the journal; and why newer ones were not."""
    warnings = []
    for path in reversed(snapshots(directory)):
        try:
            snapshot = load(path, config)
        except SnapshotError as error:
            warnings.append(f"{error}; it is not used")
            continue
        if agrees is None or agrees(snapshot.meta):
            return snapshot, warnings
        warnings.append(f"{path}: is not of this journal, or of a part of it that was lost; it is not used")
    return None, warnings


def restore(follower: Follower, snapshot: Snapshot) -> None:
    """Bring a new follower to where a snapshot is."""
    for mine, its in zip(follower.engine.state, snapshot.state, strict=True):
        mine[...] = its
    meta = snapshot.meta
    follower.sequence, follower.check, follower.last_ns = meta.sequence, meta.check, meta.last_ns
    follower.events, follower.events_digest = meta.events, meta.events_digest
    follower.keep(snapshot.recent)


def write_from(directory: Path, follower: Follower) -> Path:
    """Write a snapshot of what a follower has come to."""
    assert follower.check is not None
    meta = Meta(follower.sequence, follower.check, follower.last_ns, follower.events, follower.events_digest)
    return write(directory, follower.engine.config, follower.engine.state, meta, follower.recent())


class Snapshotter:
    """A process with an engine of its own that follows the journal a segment behind, and writes a snapshot after each.

    So the live loop never pauses for one. A process, not a thread: a thread of ordinary priority that is interrupted
    while it holds the interpreter's lock would stop a loop of real-time priority. It is started when the first segment
    ends. What goes wrong in it is told in `failed`, ends the snapshots, and is no matter to the venue.
    """

    def __init__(self, directory: Path) -> None:
        self.failed: str | None = None
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def segment_finished(self, path: Path) -> None:
        """Say that a segment is whole (what Writer.roll returned). Does not wait for the snapshot."""
        try:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "exchange.snapshots", str(self._directory)],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    preexec_fn=_be_ordinary,
                )
            assert self._process.stdin is not None
            self._process.stdin.write(f"{path}\n".encode())
            self._process.stdin.flush()
        except OSError as error:  # if it has died, close() hears what of
            self.failed = f"no more snapshots: {error}"

    def close(self, timeout_s: float = 60.0) -> None:
        """End the process, after the segments that it was told of."""
        if self._process is None:
            return
        try:
            said, _ = self._process.communicate(timeout=timeout_s)
            if self._process.returncode:
                self.failed = f"no more snapshots: {said.decode().strip() or 'it died'}"
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            self.failed = f"no more snapshots: the last took longer than {timeout_s:.0f} s"


def _be_ordinary() -> None:
    """Leave the venue's real-time class, and go with the venue."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(10)


def main(directory: Path) -> int:
    """The process: a segment's path a line on standard input; what went wrong, if anything, on standard output."""
    follower: Follower | None = None
    try:
        for line in sys.stdin:
            path = Path(line.rstrip("\n"))
            paths = journal.segments(directory)
            paths = paths[: paths.index(path) + 1]
            if follower is None:
                follower = begin(directory, journal.read_header(paths[0]).config, paths)[0]
            for _ in follow_segments(follower, paths, complete=True):
                pass
            if follower.sequence >= journal.sequence_of(path):
                write_from(directory, follower)
    except (OSError, JournalError, ValueError) as error:
        print(error, flush=True)
        return 1
    return 0


def begin(directory: Path, config: EngineConfig, paths: list[Path]) -> tuple[Follower, int, list[str]]:
    """A follower at the newest snapshot that agrees with these segments, or at the beginning.

    Returns: (follower, commands that its snapshot saves, warnings).
    Raises: JournalError.
    """
    journal.check_first(paths[0])
    headers: dict[Path, journal.Header] = {}

    def agrees(meta: Meta) -> bool:
        path = _segment_of(paths, meta.sequence + 1)
        if path not in headers:
            headers[path] = journal.read_header(path)
        header = headers[path]
        if header.first_sequence == meta.sequence + 1:
            return header.previous_check == meta.check
        return journal.read_check(path, header, meta.sequence) == meta.check

    snapshot, warnings = latest(directory, config, agrees)
    follower = Follower(config)
    if snapshot is not None:
        restore(follower, snapshot)
    return follower, follower.sequence, warnings


def _segment_of(paths: list[Path], sequence: int) -> Path:
    """The last segment that begins at or before a sequence."""
    return [path for path in paths if journal.sequence_of(path) <= sequence][-1]


def follow_segments(follower: Follower, paths: list[Path], complete: bool = False) -> Iterator[journal.Segment]:
    """Read, verify and apply what follows on the follower's last command, a segment at a time.

    Args: paths: the journal's segments from record 1's; complete: the last of them, too, is ended.
    Yields: each segment, without its commands.
    Raises: JournalError: damaged or missing; TornJournalError: the last segment has not even a whole header.
    """
    start = paths.index(_segment_of(paths, follower.sequence + 1))
    _check_names(paths[: start + 1])
    before: journal.Segment | None = None
    for path in paths[start:]:
        part = journal.read_segment(path, path is paths[-1] and not complete)
        if before is not None:
            journal.check_link(before, part.header, path)
        if part.next_sequence <= follower.sequence:
            raise JournalError(f"{path}: ends before record {follower.sequence}")
        follower.apply(part.commands[follower.sequence + 1 - part.header.first_sequence :])
        before = part = part._replace(commands=part.commands[:0].copy())  # frees the segment before the next is read
        yield part


def _check_names(paths: list[Path]) -> None:
    """Check that segments, of which all but the last are not read, join: each ends with the record before the next."""
    for path, following in itertools.pairwise(paths):
        header, after = journal.read_header(path), journal.read_header(following)
        last = after.first_sequence - 1
        if header.config != after.config or journal.read_check(path, header, last) != after.previous_check:
            raise JournalError(
                f"{path}: does not end with the record {last} from which {following.name} goes on: "
                "segments are missing or of another run"
            )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
