"""The journal: every command in the order in which the venue sequenced it. It is the truth; all else derives from it.

Owns the layout of its files, their checksums, their allocation and the judgement of a damaged one. A journal is a
directory of segments, `{first_sequence:012d}.journal`. Layout of a segment, little-endian:

    8 bytes   magic b"AARJRNL2"
    8 bytes   length of the header in bytes
    16 bytes  BLAKE2b of the header
    header    JSON: engine (an EngineConfig), record (names of a COMMAND's fields), first_sequence, previous_check;
              padded with spaces to a multiple of a record from the file's start
    records   COMMAND; `check` chains over the record's other words and the previous check
    zeros     in a segment that is being written, or was when its venue died: what was allocated and not yet used

The chain goes on from segment to segment. It starts from a digest of the configuration, so that records cannot be moved
under another one. No record is all zeros, because its sequence is at least 1.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import threading
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from exchange.bits import mix
from exchange.config import EngineConfig
from exchange.errors import ConfigurationError, JournalError, TornJournalError
from exchange.jit import kernel
from exchange.state import Array
from exchange.types import COMMAND

MAGIC = b"AARJRNL2"
SEGMENT_RECORDS = 1 << 19
SUFFIX = ".journal"
_PREPARED = "next.prepared"
_NAME = re.compile(r"\d{12,}\.journal")
_PREFIX_BYTES = 32
_RECORD = COMMAND.itemsize
_RECORD_WORDS = _RECORD // 8
_MAX_HEADER_BYTES = 1 << 20
# There is no preallocation here, or the file may not become as large as a segment: it grows as it is written.
_GROWS_INSTEAD = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EFBIG)


@kernel
def fold(previous, words):
    """Chain one record's words (all but its check) onto the previous check."""
    check = previous
    for at in range(words.shape[0] - 1):
        check = mix(check, words[at])
    return check


@kernel
def seal(words, first, last, previous):
    """Write the checks of records first … last−1 (int64[n, fields]) in place; returns the last check."""
    for at in range(first, last):
        previous = fold(previous, words[at])
        words[at, words.shape[1] - 1] = previous
    return previous


@kernel
def _first_unsound(words, first_sequence, previous):
    """Number of the first record whose check or sequence is wrong, or n."""
    for at in range(words.shape[0]):
        if words[at, 0] != first_sequence + at or fold(previous, words[at]) != words[at, words.shape[1] - 1]:
            return at
        previous = words[at, words.shape[1] - 1]
    return words.shape[0]


@kernel
def _any_sound(words, start, first_sequence):
    """Whether any record from `start` (at least 1) on has its sequence and follows from the one before it."""
    for at in range(start, words.shape[0]):
        follows = fold(words[at - 1, words.shape[1] - 1], words[at]) == words[at, words.shape[1] - 1]
        if follows and words[at, 0] == first_sequence + at:
            return True
    return False


def _check_of(settings: Any) -> int:
    text = json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def first_check(config: EngineConfig) -> int:
    """The check (signed 64 bits) that the very first record of a journal under this configuration follows."""
    return _check_of(config.model_dump(mode="json"))


def segments(directory: Path) -> list[Path]:
    """The journal's files in their order; none if the directory holds no journal.

    Raises: JournalError: it holds one of another version.
    """
    found = []
    for path in directory.glob(f"*{SUFFIX}"):
        if not _NAME.fullmatch(path.name):
            raise JournalError(f"{path}: is not a segment of a journal of this version; replay it with its own")
        found.append(path)
    return sorted(found, key=sequence_of)


def sequence_of(path: Path) -> int:
    """The sequence of a segment's first record, by the file's name."""
    return int(path.name.split(".")[0])


def lock(directory: Path) -> int:
    """Take the directory for oneself; returns a descriptor of it, whose closing gives it free.

    Raises: ConfigurationError: another process writes its journal; OSError: there is no such directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(f"{directory}: another venue is writing the journal there; stop it first") from None
    except OSError:
        pass  # a file system without locks
    return descriptor


# --- reading


class Header(NamedTuple):
    config: EngineConfig
    first_sequence: int
    previous_check: int
    start: int
    """Byte at which the records begin."""


class Segment(NamedTuple):
    path: Path
    header: Header
    commands: Array  # COMMAND[n], all sound
    next_sequence: int
    check: int
    """Of the last of them, or the header's previous_check."""
    end: int
    """Byte behind the last of them."""
    torn: bool
    """What follows is neither zeros nor a sound record: it was never wholly written."""


class Journal(NamedTuple):
    config: EngineConfig
    commands: Array  # COMMAND[n]


def _content(path: Path, limit: int | None = None) -> Array:
    """The file, or its first `limit` bytes, as uint8[n]. Not mapped: its writer may shorten it while we read."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            raw = np.empty(size if limit is None else min(size, limit), np.uint8)
            done = 0
            while done < len(raw):
                got = file.readinto(raw[done:].data)
                if not got:
                    break
                done += got
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from None
    return raw[:done]


def _parse_header(path: Path, raw: Array) -> Header | str:
    """The header, or what is wrong with it. Raises: JournalError: it is sound, and of another version or file."""
    prefix = raw[:_PREFIX_BYTES].tobytes()
    if len(prefix) == _PREFIX_BYTES and prefix[:7] == MAGIC[:7] and prefix[:8] != MAGIC:
        raise JournalError(f"{path}: is a journal of another version ({prefix[:8]!r}, not {MAGIC!r})")
    length = int.from_bytes(prefix[8:16], "little")
    start = _PREFIX_BYTES + length
    if prefix[:8] != MAGIC or length > _MAX_HEADER_BYTES or start > len(raw):
        return f"does not start with a whole header of a journal (magic {MAGIC!r})"
    text = raw[_PREFIX_BYTES:start].tobytes()
    if hashlib.blake2b(text, digest_size=16).digest() != prefix[16:32]:
        return f"has a damaged header (bytes {_PREFIX_BYTES} to {start})"
    try:
        said = json.loads(text)
        config = EngineConfig.model_validate(said["engine"])
        header = Header(config, int(said["first_sequence"]), int(said["previous_check"]), start)
        same = said["record"] == list(COMMAND.names or ()) and start % _RECORD == 0
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise JournalError(f"{path}: its header is of another version of the engine; replay it with that one")
    if header.first_sequence != sequence_of(path):
        raise JournalError(f"{path}: holds the records from {header.first_sequence} on: it was renamed")
    if header.first_sequence == 1 and header.previous_check != _check_of(said["engine"]):
        raise JournalError(f"{path}: its records do not follow from the configuration in its header")
    return header


def read_header(path: Path, last: bool = False) -> Header:
    """Read and verify the header only; `last`: of the last segment of its journal.

    Raises: JournalError; TornJournalError: last, never wholly written, and without a record.
    """
    raw = _content(path, _PREFIX_BYTES + _MAX_HEADER_BYTES)
    header = _parse_header(path, raw)
    return header if isinstance(header, Header) else _refuse_header(path, header, last)


def _refuse_header(path: Path, fault: str, last: bool) -> Header:
    # A header is text, and its prefix no small number: no record-aligned word of it looks like a sequence.
    raw = _content(path)
    whole = len(raw) // _RECORD
    sequences = raw[: whole * _RECORD].view("<i8").reshape(whole, _RECORD_WORDS)[:, 0]
    if not last or (sequences == sequence_of(path)).any():
        raise JournalError(f"{path}: {fault}, at byte 0; take another copy")
    sound = sequence_of(path) - 1
    advice = f"replay the {sound} commands before it with --until {sound}" if sound else "nothing to replay"
    raise TornJournalError(f"{path}: {fault}, at byte 0: it was never wholly written; {advice}", sound)


def read_segment(path: Path, last: bool, until: int | None = None) -> Segment:
    """Read and verify one segment; `last`: of its journal; `until`: no record of a greater sequence.

    Raises: JournalError: damaged, naming the byte; TornJournalError: last, and not even its header is whole.
    """
    raw = _content(path)
    header = _parse_header(path, raw)
    if not isinstance(header, Header):
        header = _refuse_header(path, header, last)
    first = header.first_sequence
    whole = (len(raw) - header.start) // _RECORD
    words = raw[header.start : header.start + whole * _RECORD].view("<i8").reshape(whole, _RECORD_WORDS)
    wanted = words if until is None else words[: max(0, until - first + 1)]
    sound = int(_first_unsound(wanted, first, header.previous_check))
    check = int(words[sound - 1, -1]) if sound else header.previous_check
    end = header.start + sound * _RECORD
    torn = False
    # Where `until` was reached it does not matter what follows.
    if (until is None or sound < len(wanted)) and raw[end:].any():
        # A record after the bad one that follows from its neighbour proves that writing went on: the middle is damaged.
        later = False
        if sound + 1 < whole:
            following = words[sound + 1]
            repaired = fold(check, words[sound])  # if only the bad record's own check is damaged
            later = following[0] == first + sound + 1 and fold(repaired, following) == following[-1]
            later = bool(later or _any_sound(words, sound + 1, first))
        if later or not last:
            raise JournalError(
                f"{path}: record {first + sound} at byte {end} is damaged while later ones are sound; "
                f"take another copy, or replay what precedes it with --until {first + sound - 1}"
            )
        torn = True
    return Segment(path, header, words[:sound].view(COMMAND).reshape(-1), first + sound, check, end, torn)


def check_link(before: Segment, after: Header, path: Path) -> None:
    """Check that a segment (`after`, in `path`) follows from the one before. Raises: JournalError."""
    if after.config != before.header.config:
        raise JournalError(f"{path}: is under another configuration than {before.path.name}")
    if after.first_sequence != before.next_sequence:
        raise JournalError(
            f"{before.path}: ends at byte {before.end} before record {before.next_sequence}, "
            f"and the next segment, {path.name}, begins with record {after.first_sequence}: "
            f"what is between is missing; replay what precedes it with --until {before.next_sequence - 1}"
        )
    if after.previous_check != before.check:
        raise JournalError(f"{path}: its records do not follow from those of {before.path.name}: it is of another run")


def check_first(path: Path) -> None:
    """Check that a journal begins with this segment. Raises: JournalError."""
    if sequence_of(path) != 1:
        raise JournalError(f"{path}: is the first segment there and not record 1's: those before it are missing")


def torn_error(segment: Segment) -> TornJournalError:
    """What to say of a torn tail."""
    sound = segment.next_sequence - 1
    return TornJournalError(
        f"{segment.path}: was never wholly written from record {sound + 1} at byte {segment.end} on; "
        f"the {sound} commands before it are sound: replay them with --until {sound}",
        sound,
    )


def read_check(path: Path, header: Header, sequence: int) -> int | None:
    """The check of one record without reading the rest; None if that record is not where it should be."""
    with path.open("rb") as file:
        file.seek(header.start + (sequence - header.first_sequence) * _RECORD)
        raw = file.read(_RECORD)
    if len(raw) < _RECORD or int.from_bytes(raw[:8], "little", signed=True) != sequence:
        return None
    return int.from_bytes(raw[-8:], "little", signed=True)


def read(directory: Path, until: int | None = None) -> Journal:
    """Read and verify a journal; `until` takes only the first commands, so that damage behind them is no matter.

    Raises: JournalError: absent, not a journal, damaged or a part missing (names the file and the byte);
    TornJournalError: its last records were never wholly written.
    """
    paths = segments(directory)
    if not paths:
        raise JournalError(f"{directory}: holds no journal; name the directory of a run")
    check_first(paths[0])
    parts: list[Segment] = []
    for path in paths:
        if parts and until is not None and sequence_of(path) > until:
            break
        part = read_segment(path, path is paths[-1], until)
        if parts:
            check_link(parts[-1], part.header, path)
        parts.append(part)
    if parts[-1].torn:
        raise torn_error(parts[-1])
    count = parts[-1].next_sequence - 1
    if until is not None and count < until:
        raise JournalError(f"{directory}: holds {count} commands, fewer than --until {until}")
    # A view of the only part would keep alive all that was allocated and not used.
    return Journal(parts[0].header.config, np.concatenate([part.commands for part in parts]))


def _header_bytes(config: EngineConfig, first_sequence: int, previous_check: int) -> bytes:
    text = json.dumps(
        {
            "engine": config.model_dump(mode="json"),
            "record": list(COMMAND.names or ()),
            "first_sequence": first_sequence,
            "previous_check": previous_check,
        }
    ).encode()
    text += b" " * (-(len(text) + _PREFIX_BYTES) % _RECORD)
    return MAGIC + len(text).to_bytes(8, "little") + hashlib.blake2b(text, digest_size=16).digest() + text


def _allocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _GROWS_INSTEAD:
            raise


def _shorten(descriptor: int, size: int) -> None:
    """Cut a file to what was used of it. It never grows: after a failed write less is there than was wanted."""
    if os.fstat(descriptor).st_size > size:
        os.ftruncate(descriptor, size)


class Writer:
    """The segment that is being written, and the next.

    The event loop writes records itself (pwrite to `descriptor` at `offset`, at most `room` of them) and counts; it
    comes back with the sequence that is next. `roll` and `close` are the loop's thread's; `prepare`, `finish` and
    `sync` may be called in any.
    """

    descriptor: int
    offset: int
    """Byte at which the next record goes, when the loop takes the segment over."""
    room: int
    """Records that fit from there."""
    path: Path

    def __init__(
        self,
        directory: Path,
        config: EngineConfig,
        segment_records: int = SEGMENT_RECORDS,
        next_sequence: int = 1,
        check: int | None = None,
    ) -> None:
        """Start a journal, or with a `check` go on with the one whose next record is next_sequence (recovery says).

        Raises: FileExistsError: there is one and no `check`; JournalError: it does not end there;
        ConfigurationError: another venue writes it; OSError, a full disk too.
        """
        self._folder = directory
        self._config = config
        self._segment_records = segment_records
        self._prepared = -1
        self._making = threading.Lock()
        self._finishing = threading.Lock()
        self._unfinished: deque[tuple[int, int]] = deque()  # descriptor, bytes used
        self._renamed = False
        self.descriptor = -1
        self._directory = lock(directory)
        try:
            (directory / _PREPARED).unlink(missing_ok=True)  # of a venue that died
            there = segments(directory)
            if there and check is None:
                raise FileExistsError(errno.EEXIST, "there is a journal already", str(there[0]))
            if there and check is not None:
                self._go_on(there[-1], next_sequence, check)
            else:
                first = first_check(config)
                if next_sequence != 1 or check not in (None, first):
                    raise JournalError(f"{directory}: the journal that was recovered is gone")
                self._switch(1, first)
            self.finish()
        except BaseException:
            if self.descriptor >= 0:
                os.close(self.descriptor)
            os.close(self._directory)
            raise

    def _go_on(self, path: Path, next_sequence: int, check: int) -> None:
        header = read_header(path)
        used = next_sequence - header.first_sequence
        at_end: int | None = header.previous_check
        if used:
            at_end = read_check(path, header, next_sequence - 1) if used > 0 else None
        if at_end != check or read_check(path, header, next_sequence) is not None:
            raise JournalError(f"{path}: does not end before record {next_sequence}: it was written to since recovery")
        self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._take_over(path, header.first_sequence, header.start)
        self.offset += used * _RECORD
        self.room = max(0, self._segment_records - used)
        if self.room:
            try:
                _allocate(self.descriptor, self._start + self._segment_records * _RECORD)
            except OSError:
                _shorten(self.descriptor, self.offset)
                raise
        else:
            self.roll(next_sequence, check)

    def _take_over(self, path: Path, first_sequence: int, start: int) -> None:
        self.path = path
        self._first_sequence = first_sequence
        self._start = self.offset = start
        self.room = self._segment_records

    def _used(self, next_sequence: int) -> int:
        return self._start + (next_sequence - self._first_sequence) * _RECORD

    def _make(self) -> int:
        """Make and allocate a file that is no segment yet; `_making` is held. Raises: OSError; nothing is left then."""
        path = self._folder / _PREPARED
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            header = len(_header_bytes(self._config, 10**12, -(1 << 63)))
            _allocate(descriptor, header + self._segment_records * _RECORD)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        return descriptor

    def _switch(self, first_sequence: int, previous_check: int) -> None:
        """Go on in a new segment. Raises: OSError; the segment that was being written stays as it is then."""
        path = self._folder / f"{first_sequence:012d}{SUFFIX}"
        header = _header_bytes(self._config, first_sequence, previous_check)
        with self._making:
            descriptor = self._prepared if self._prepared >= 0 else self._make()
            self._prepared = -1
            try:
                if path.exists():
                    raise FileExistsError(errno.EEXIST, "there is such a segment already", str(path))
                done = 0
                while done < len(header):
                    done += os.pwrite(descriptor, header[done:], done)
                os.rename(self._folder / _PREPARED, path)
            except OSError:
                os.close(descriptor)
                (self._folder / _PREPARED).unlink(missing_ok=True)
                raise
        self._renamed = True
        if self.descriptor >= 0:
            # First this, then the new descriptor: `sync` in another thread must not miss the old one.
            self._unfinished.append((self.descriptor, self._used(first_sequence)))
        self.descriptor = descriptor
        self._take_over(path, first_sequence, len(header))

    def roll(self, next_sequence: int, check: int) -> Path:
        """Go on in the next segment: a header and a renaming, if one is prepared. The old one is whole, and its
        shortening and syncing are left to the next `prepare`, `finish` or `sync`.

        Args: next_sequence: of the record that is next; check: of the one before.
        Returns: path of the segment that ended.
        Raises: OSError; nothing has changed then.
        """
        if next_sequence <= self._first_sequence:
            raise ValueError(f"segment {self.path.name} is empty: there is nothing to roll")
        ended = self.path
        self._switch(next_sequence, check)
        return ended

    def prepare(self) -> None:
        """Finish what has ended, and make and allocate the next segment's file, if there is none.

        Raises: OSError: the disk is full, or the ended segment could not be written; the one in use is as it was.
        """
        self.finish()
        with self._making:
            if self._prepared < 0 <= self.descriptor:
                self._prepared = self._make()

    def finish(self) -> None:
        """Shorten ended segments to what was used, and have them and their names on the disk. Raises: OSError."""
        with self._finishing:
            self._finish()

    def _finish(self) -> None:
        while self._unfinished:
            descriptor, used = self._unfinished[0]
            _shorten(descriptor, used)
            os.fdatasync(descriptor)
            self._unfinished.popleft()  # only now: what could not be synced must not count as such
            os.close(descriptor)
        if self._renamed:
            self._renamed = False
            os.fsync(self._directory)

    def sync(self) -> None:
        """Have everything on the disk that was written before. Raises: OSError.

        A loop that calls fdatasync itself calls this once after each `roll`.
        """
        with self._finishing:
            while True:
                self._finish()
                os.fdatasync(self.descriptor)
                if not self._unfinished:  # else a `roll` came between
                    return

    def close(self, next_sequence: int) -> None:
        """Shorten the segment to what was used, have all on the disk, give the directory free. Raises: OSError."""
        if self.descriptor < 0:
            return
        try:
            with self._making:
                if self._prepared >= 0:
                    os.close(self._prepared)
                    (self._folder / _PREPARED).unlink(missing_ok=True)
                    self._prepared = -1
            _shorten(self.descriptor, self._used(next_sequence))
            self._renamed = True  # the prepared file's name went
            self.sync()
        finally:
            with contextlib.suppress(OSError):
                while self._unfinished:  # only after an error
                    os.close(self._unfinished.popleft()[0])
            os.close(self.descriptor)
            os.close(self._directory)
            self.descriptor = -1
