"""The journal: every command in the order in which the venue sequenced it. It is the truth; all else derives from it.

Owns the file's layout, its checksums and the judgement of a damaged file. Layout, little-endian:

    8 bytes   magic b"AARJRNL1"
    8 bytes   length of the header in bytes
    16 bytes  BLAKE2b of the header
    header    JSON of the EngineConfig, padded with spaces to a multiple of 128 bytes from the file's start
    records   COMMAND, 128 bytes each; `check` chains over the record's other words and the previous check

The first check starts from the header's digest, so that records cannot be moved under another configuration.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from exchange.bits import mix
from exchange.config import EngineConfig
from exchange.errors import JournalError, TornJournalError
from exchange.jit import kernel
from exchange.state import Array
from exchange.types import COMMAND

MAGIC = b"AARJRNL1"
FILE_NAME = "commands.journal"
_PREFIX_BYTES = 32
_RECORD_WORDS = len(COMMAND.names or ())
_MAX_HEADER_BYTES = 1 << 20


@kernel
def fold(previous, words):
    """Chain one record's words (all but its check) onto the previous check."""
    check = previous
    for word in words[:-1]:
        check = mix(check, word)
    return check


@kernel
def seal(words, first, last, previous):
    """Write the checks of records first … last−1 (int64[n, 16]) in place; returns the last check."""
    for at in range(first, last):
        previous = fold(previous, words[at])
        words[at, words.shape[1] - 1] = previous
    return previous


@kernel
def _first_unsound(words, start, previous):
    """Number of the first record from `start` whose check or sequence is wrong, or n."""
    for at in range(start, words.shape[0]):
        if fold(previous, words[at]) != words[at, words.shape[1] - 1] or words[at, 0] != at + 1:
            return at
        previous = words[at, words.shape[1] - 1]
    return words.shape[0]


def _header(config: EngineConfig) -> tuple[bytes, int]:
    """The file's first bytes for this configuration, and the check that the first record follows."""
    text = config.model_dump_json().encode()
    text += b" " * (-(len(text) + _PREFIX_BYTES) % COMMAND.itemsize)
    digest = hashlib.blake2b(text, digest_size=16).digest()
    first_check = int.from_bytes(digest[:8], "little", signed=True)
    return MAGIC + len(text).to_bytes(8, "little") + digest + text, first_check


def create(directory: Path, config: EngineConfig) -> tuple[int, int]:
    """Start a new journal in an existing directory.

    Returns: (file descriptor open for appending, check that the first record follows).
    Raises: FileExistsError if there is one already; it is never overwritten.
    """
    header, first_check = _header(config)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(directory / FILE_NAME, flags, 0o644)
    os.write(descriptor, header)
    return descriptor, first_check


class Journal(NamedTuple):
    config: EngineConfig
    commands: Array  # COMMAND[n]


def read(directory: Path, until: int | None = None) -> Journal:
    """Read and verify a journal; `until` takes only the first commands, so that a torn tail behind them is no matter.

    Raises: JournalError: absent, not a journal, or damaged in the middle (names the byte);
    TornJournalError: cut off, or its last records were never wholly written.
    """
    path = directory / FILE_NAME
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}; name the directory of a run") from None
    if raw[:8] != MAGIC:
        raise JournalError(f"{path}: does not start with {MAGIC!r}, so it is not a journal of this version")
    length = int.from_bytes(raw[8:16], "little")
    start = _PREFIX_BYTES + length
    header = raw[_PREFIX_BYTES:start]
    if length > _MAX_HEADER_BYTES or len(header) != length or start % COMMAND.itemsize:
        raise TornJournalError(f"{path}: cut off within its header, at byte {len(raw)}; nothing to replay", 0)
    if hashlib.blake2b(header, digest_size=16).digest() != raw[16:32]:
        raise JournalError(f"{path}: its header (bytes 32 to {start}) is damaged; take another copy of the run")
    try:
        config = EngineConfig.model_validate_json(header)
    except ValueError:
        raise JournalError(f"{path}: its header is of another version of the engine; replay it with that one") from None
    whole = (len(raw) - start) // COMMAND.itemsize
    words = np.frombuffer(raw, "<i8", whole * _RECORD_WORDS, start).reshape(whole, _RECORD_WORDS)
    if until is not None:
        words = words[:until]
    first_check = int.from_bytes(raw[16:24], "little", signed=True)
    sound = int(_first_unsound(words, 0, first_check))
    if sound < len(words):
        _refuse(path, words, sound, first_check, start + sound * COMMAND.itemsize)
    if until is None and start + whole * COMMAND.itemsize != len(raw):
        offset = start + whole * COMMAND.itemsize
        raise TornJournalError(
            f"{path}: cut off within record {whole + 1}, at byte {offset}; "
            f"the {whole} commands before it are sound: replay them with --until {whole}",
            whole,
        )
    if until is not None and len(words) < until:
        raise JournalError(f"{path}: holds {len(words)} commands, fewer than --until {until}")
    return Journal(config, words.copy().view(COMMAND).reshape(-1))


def _refuse(path: Path, words: Array, sound: int, first_check: int, offset: int) -> None:
    # A record after the bad one that follows from its neighbour proves that writing went on: the middle is damaged.
    before = int(words[sound - 1, -1]) if sound else first_check
    repaired = int(fold(before, words[sound]))  # if only the bad record's own check is damaged
    later = [int(_first_unsound(words[: sound + 2], sound + 1, repaired)) > sound + 1] if sound + 1 < len(words) else []
    later += [
        int(_first_unsound(words[: at + 1], at, int(words[at - 1, -1]))) > at for at in range(sound + 1, len(words))
    ]
    if any(later):
        raise JournalError(
            f"{path}: record {sound + 1} at byte {offset} is damaged while later ones are sound; "
            f"take another copy, or replay what precedes it with --until {sound}"
        )
    raise TornJournalError(
        f"{path}: was never wholly written from record {sound + 1} at byte {offset} on; "
        f"replay what precedes it with --until {sound}",
        sound,
    )
