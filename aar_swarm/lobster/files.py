"""The LOBSTER file format: a message file and its book file into two checked arrays.

Owns: finding the two files, parsing, and the checks that need no tick. Must not: make orders of it, write anything,
or open any file but the one given and, for a bare message file, the book file beside it. A file that is wrong is the
owner's of the file to mend: every fault is one LobsterError of one line, with the file and the row (from 1).
"""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl

ROWS_MAX = 10_000_000
LEVELS_MAX = 200
MESSAGE_ROW_BYTES_MAX = 128  # a row of the sample has 41
LEVEL_BYTES_MAX = 64  # four cells of at most 11 digits, a sign and a comma each, with some to spare
FILE_BYTES_MAX = 4 << 30
EMPTY_PRICE = 9_999_999_999
"""A level that is empty has this ask price, or minus this bid price, and the size 0."""

MESSAGE_COLUMNS = ("time_ns", "type", "order_id", "size", "price", "direction")
MESSAGE = np.dtype([(name, np.int64) for name in MESSAGE_COLUMNS])
"""time_ns since midnight; price in dollars x 10,000; direction 1: the resting order is a buy, -1: a sell."""


class MessageType(IntEnum):
    """What a row of the message file says happened. Up to EXECUTE, to an order that could be seen."""

    ADD = 1
    REDUCE = 2
    DELETE = 3
    EXECUTE = 4
    EXECUTE_HIDDEN = 5
    CROSS = 6
    HALT = 7


class LobsterError(ValueError):
    """A LOBSTER file that cannot be used. The message is one line: file, row (from 1), what is wrong, what to do."""


@dataclass(frozen=True)
class Day:
    """One day as recorded. `books[i]` is the book after `messages[i]`."""

    messages: np.ndarray
    """MESSAGE records, times never decreasing."""
    books: np.ndarray
    """int64, rows x 4*levels: ask price, ask size, bid price, bid size, level by level; prices x 10,000."""
    levels: int
    message_name: str
    """What errors call the message file, and book_name the book file."""
    book_name: str


def read(path: str | Path) -> Day:
    """Read a day: the .zip as LOBSTER delivers it, or the message csv beside its book csv.

    Raises: LobsterError, saying which file and row, if anything is missing or malformed.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return _read_csv_pair(path)
    with _zip_faults(path):
        archive = zipfile.ZipFile(path)
    with archive:
        return _read_zip(path, archive)


def _read_zip(path: Path, archive: zipfile.ZipFile) -> Day:
    found: dict[str, zipfile.ZipInfo] = {}
    for kind in ("message", "orderbook"):
        members = [info for info in archive.infolist() if _is_member(info.filename, kind)]
        if len(members) != 1:
            what = f"holds {len(members)} files named *_{kind}_*.csv, must hold exactly 1"
            _fail(str(path), f"{what}; give the zip of one day of one instrument")
        found[kind] = members[0]
    message, book = (f"{path}:{found[kind].filename}" for kind in ("message", "orderbook"))
    # The declared sizes are checked before anything is unpacked; zipfile unpacks no more than is declared.
    _check_bytes(message, found["message"].file_size, ROWS_MAX * MESSAGE_ROW_BYTES_MAX)
    messages = _parse_messages(message, _unpack(path, archive, found["message"]))
    _check_bytes(book, found["orderbook"].file_size, _book_bytes_max(len(messages)))
    return _day(message, messages, book, _unpack(path, archive, found["orderbook"]))


def _unpack(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with _zip_faults(path):
        return archive.read(member)


@contextmanager
def _zip_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        _fail(str(path), "there is no such file; give the .zip as downloaded, or the *_message_*.csv")
    except Exception as error:  # noqa: BLE001 - a damaged zip makes zipfile raise nearly anything, from struct.error to a bad name's
        reason = str(error)[:80] or type(error).__name__
        _fail(str(path), f"not a zip that can be read, or truncated ({reason}); download it again")


def _is_member(filename: str, kind: str) -> bool:
    name = Path(filename).name
    # Archivers of one vendor add hidden twins ("._name") of each file.
    return f"_{kind}_" in name and name.endswith(".csv") and not name.startswith(".")


def _read_csv_pair(path: Path) -> Day:
    if "_message_" not in path.name:
        _fail(str(path), "not named *_message_*.csv; give the message file, its book file is found beside it")
    book_path = path.with_name(path.name.replace("_message_", "_orderbook_"))
    message, book = str(path), str(book_path)
    messages = _parse_messages(message, _read_file(path, ROWS_MAX * MESSAGE_ROW_BYTES_MAX))
    return _day(message, messages, book, _read_file(book_path, _book_bytes_max(len(messages))))


def _read_file(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            _check_bytes(str(path), path.stat().st_size, bytes_max)
            return file.read(bytes_max + 1)
    except FileNotFoundError:
        _fail(str(path), "there is no such file; the message and the book file must lie in one folder")
    except OSError as error:
        _fail(str(path), f"cannot be read ({error.strerror}); check that it is a file and its permissions")


def _book_bytes_max(row_count: int) -> int:
    # One row more than is allowed, so that a row count that differs is what gets reported.
    return min(FILE_BYTES_MAX, (row_count + 1) * LEVELS_MAX * LEVEL_BYTES_MAX)


def _check_bytes(name: str, byte_count: int, bytes_max: int) -> None:
    if byte_count > bytes_max:
        _fail(name, f"{byte_count} bytes, at most {bytes_max} are read; is it the right file? Cut it into shorter days")


def _parse_messages(name: str, data: bytes) -> np.ndarray:
    ends = _line_ends(name, data, len(MESSAGE_COLUMNS), "a message file has 6 columns")
    schema: dict[str, type[pl.DataType]] = dict.fromkeys(MESSAGE_COLUMNS, pl.Int64)
    schema["time_ns"] = pl.Float64
    frame = _parse(name, data, ends, schema)
    seconds = frame["time_ns"].to_numpy()
    # NaN fails both comparisons. A double holds a day's nanoseconds to 0.01 ns, so rounding finds the exact number.
    _check(name, data, ends, (seconds >= 0) & (seconds < 86_400), "the time must be in seconds, 0 to below 86400")
    messages = np.empty(len(frame), MESSAGE)
    messages["time_ns"] = np.rint(seconds * 1e9)
    for column in MESSAGE_COLUMNS[1:]:
        messages[column] = frame[column].to_numpy()
    not_decreasing = np.concatenate(([True], np.diff(messages["time_ns"]) >= 0))
    _check(name, data, ends, not_decreasing, "the time is before that of the row above; rows must be in time order")
    known = (messages["type"] >= min(MessageType)) & (messages["type"] <= max(MessageType))
    _check(name, data, ends, known, "the type (column 2) must be 1 to 7")
    # Hidden executions, crosses and halts carry placeholders; nothing of them is used.
    hidden = messages["type"] > MessageType.EXECUTE
    directed = hidden | np.isin(messages["direction"], (1, -1))
    _check(name, data, ends, directed, "the direction (column 6) must be 1 or -1")
    for number, column in enumerate(MESSAGE_COLUMNS[2:5], start=3):
        positive = (messages[column] > 0) & (messages[column] < EMPTY_PRICE)
        _check(name, data, ends, hidden | positive, f"the {column} (column {number}) must be 1 to {EMPTY_PRICE - 1}")
    return messages


def _day(message_name: str, messages: np.ndarray, book_name: str, data: bytes) -> Day:
    width = data[: LEVELS_MAX * LEVEL_BYTES_MAX].split(b"\n", 1)[0].count(b",") + 1
    if width % 4 or width > 4 * LEVELS_MAX:
        _fail(book_name, f"{width} columns, must be 4 a level for 1 to {LEVELS_MAX} levels; download it again", 1)
    levels = width // 4
    ends = _line_ends(book_name, data, width, f"row 1 has {width}, so must every row")
    if len(ends) != len(messages):
        what = f"{len(ends)} rows, but {message_name} has {len(messages)}; both must be whole and of the same day"
        _fail(book_name, what, min(len(ends), len(messages)) + 1)
    names = [f"column_{number}" for number in range(1, width + 1)]
    books = _parse(book_name, data, ends, dict.fromkeys(names, pl.Int64)).to_numpy(order="c")
    prices, sizes = books[:, ::2], books[:, 1::2]
    empty = np.tile(np.array([EMPTY_PRICE, -EMPTY_PRICE]), levels)
    filled = (prices > 0) & (prices < EMPTY_PRICE) & (sizes > 0)
    sound = (filled | ((sizes == 0) & (prices == empty))).all(axis=1)
    what = f"a size must be above 0 with a price in 1 to {EMPTY_PRICE - 1}, or 0 with the price {EMPTY_PRICE} or minus"
    _check(book_name, data, ends, sound, what)
    asks, bids = np.diff(prices[:, ::2], axis=1), -np.diff(prices[:, 1::2], axis=1)
    # Only an empty level may be followed by one of the same price.
    ordered = ((asks > 0) | (prices[:, 2::2] == EMPTY_PRICE)) & ((bids > 0) | (prices[:, 3::2] == -EMPTY_PRICE))
    what = "each level must be worse than the one before: asks upwards, bids downwards, empty levels last"
    _check(book_name, data, ends, ordered.all(axis=1), what)
    return Day(messages, books, levels, message_name, book_name)


def _line_ends(name: str, data: bytes, width: int, rule: str) -> np.ndarray:
    """The offset behind each line, after checking that there are not too many and that each has `width` cells."""
    if not data:
        _fail(name, "is empty; download it again")
    characters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    if len(ends) > ROWS_MAX:
        _fail(name, f"{len(ends)} rows, at most {ROWS_MAX} are read; cut it into shorter days")
    commas = np.searchsorted(np.flatnonzero(characters == ord(",")), ends)
    widths = np.diff(commas, prepend=0) + 1
    wrong = np.flatnonzero(widths != width)
    if len(wrong):
        row = int(wrong[0])
        _fail(name, f"{widths[row]} columns in {_line(data, ends, row)}, {rule}; download it again", row + 1)
    return ends


def _parse(name: str, data: bytes, ends: np.ndarray, schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    try:
        frame = pl.read_csv(
            io.BytesIO(data),
            has_header=False,
            schema=schema,
            quote_char=None,
            ignore_errors=True,  # a cell that is no number becomes null, and is reported below with its row
            encoding="utf8-lossy",
        )
    except pl.exceptions.PolarsError as error:
        _fail(name, f"cannot be parsed ({str(error)[:80]}); download it again")
    if len(frame) != len(ends):
        _fail(name, f"{len(frame)} rows could be parsed of {len(ends)}; download it again")
    for number, column in enumerate(frame.get_columns(), start=1):
        if column.null_count():
            row = int(column.is_null().arg_max() or 0)
            what = f"column {number} is not a{' whole' * (schema[column.name] == pl.Int64)} number"
            _fail(name, f"{what} in {_line(data, ends, row)}; mend or download it again", row + 1)
    return frame


def _check(name: str, data: bytes, ends: np.ndarray, good: np.ndarray, rule: str) -> None:
    if not good.all():
        row = int(good.argmin())
        _fail(name, f"{rule}; it reads {_line(data, ends, row)}; mend or download it again", row + 1)


def _line(data: bytes, ends: np.ndarray, row: int) -> str:
    line = data[int(ends[row - 1]) + 1 if row else 0 : int(ends[row])].strip()
    return repr(line[:60].decode("ascii", "replace") + ("…" if len(line) > 60 else ""))


def _fail(name: str, what: str, row: int | None = None) -> NoReturn:
    text = f"{name}, row {row}: {what}" if row else f"{name}: {what}"
    # Names inside a zip are anybody's: what is printed stays one line.
    raise LobsterError("".join(letter if letter.isprintable() else "?" for letter in text))
