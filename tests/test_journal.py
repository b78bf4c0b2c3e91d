"""A journal is read back as it was written; every kind of damage is found, named and placed."""

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from exchange import journal
from exchange.config import EngineConfig, InstrumentConfig
from exchange.engine import Engine
from exchange.errors import ConfigurationError, JournalError, TornJournalError
from exchange.replay import as_words, replay
from exchange.types import COMMAND, CommandKind

CONFIG = EngineConfig(instruments=(InstrumentConfig(price_levels=128),), accounts=2, max_orders=64)
RECORD = COMMAND.itemsize
SMALL = 16
"""Records a segment in most of these tests."""


def commands(count: int) -> np.ndarray:
    made = np.zeros(count, COMMAND)
    made["sequence"] = np.arange(1, count + 1)
    made["kind"] = CommandKind.DEPOSIT_CASH
    made["quantity_lots"] = np.arange(1, count + 1)
    made["received_ns"] = np.arange(count) * 1000
    return made


class Recorder:
    """Writes records as the event loop does: sealed, in batches, with a count of its own."""

    def __init__(self, writer: journal.Writer, sequence: int, check: int) -> None:
        self.writer = writer
        self.sequence, self.check = sequence, check
        self.offset, self.room = writer.offset, writer.room
        self.ended: list[Path] = []

    def write(self, made: np.ndarray) -> None:
        words = as_words(made)
        done = 0
        while done < len(made):
            if not self.room:
                self.ended.append(self.writer.roll(self.sequence + 1, self.check))
                self.offset, self.room = self.writer.offset, self.writer.room
            count = min(7, self.room, len(made) - done)
            self.check = int(journal.seal(words, done, done + count, self.check))
            os.pwrite(self.writer.descriptor, words[done : done + count].tobytes(), self.offset)
            done += count
            self.sequence += count
            self.offset += count * RECORD
            self.room -= count

    def close(self) -> None:
        self.writer.close(self.sequence + 1)


def begin(directory: Path, segment_records: int = SMALL, config: EngineConfig = CONFIG) -> Recorder:
    return Recorder(journal.Writer(directory, config, segment_records), 0, journal.first_check(config))


def write(directory: Path, made: np.ndarray, segment_records: int = 1000, config: EngineConfig = CONFIG) -> list[Path]:
    """A journal that was closed in order; returns its segments."""
    recorder = begin(directory, segment_records, config)
    recorder.write(made)
    recorder.close()
    return journal.segments(directory)


def start_of(path: Path) -> int:
    return journal.read_header(path).start


def test_what_was_written_is_read_with_its_configuration(tmp_path):
    made = commands(50)
    write(tmp_path, made)
    read = journal.read(tmp_path)
    assert read.config == CONFIG
    assert np.array_equal(read.commands, made)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 32, 50])
def test_it_goes_on_from_segment_to_segment(tmp_path, count):
    made = commands(count)
    paths = write(tmp_path, made, SMALL)
    assert [journal.sequence_of(path) for path in paths] == list(range(1, max(count, 1) + 1, SMALL))
    assert np.array_equal(journal.read(tmp_path).commands, made)
    for until in range(count + 1):
        assert np.array_equal(journal.read(tmp_path, until).commands, made[:until])
    with pytest.raises(JournalError, match=f"holds {count} commands, fewer than --until {count + 1}"):
        journal.read(tmp_path, count + 1)
    # What was closed in order has no byte that was allocated and not used, and nothing else lies there.
    assert sum(path.stat().st_size - start_of(path) for path in paths) == count * RECORD
    assert sorted(tmp_path.iterdir()) == paths


def test_a_replay_of_a_journal_is_the_engine_that_wrote_it(tmp_path):
    made = commands(20)
    engine = Engine(CONFIG)
    engine.apply(made)
    write(tmp_path, made)
    assert replay(*journal.read(tmp_path)).engine.state_hash() == engine.state_hash()


def test_a_segment_that_is_being_written_is_allocated_and_can_be_read(tmp_path):
    made = commands(20)
    recorder = begin(tmp_path)
    recorder.writer.prepare()
    recorder.write(made)
    paths = journal.segments(tmp_path)
    assert [path.stat().st_size >= start_of(path) + SMALL * RECORD for path in paths] == [True, True]
    assert recorder.room == SMALL - 4 and recorder.writer.path == paths[1] and recorder.ended == paths[:1]
    assert np.array_equal(journal.read(tmp_path).commands, made)
    recorder.close()
    recorder.close()  # a second time does nothing


def test_a_segment_may_end_before_it_is_full(tmp_path):
    made = commands(10)
    recorder = begin(tmp_path)
    recorder.write(made[:4])
    recorder.writer.roll(5, recorder.check)
    with pytest.raises(ValueError, match="nothing to roll"):
        recorder.writer.roll(5, recorder.check)
    recorder.offset, recorder.room = recorder.writer.offset, recorder.writer.room
    recorder.write(made[4:])
    assert np.array_equal(journal.read(tmp_path).commands, made)  # the zeros behind record 4 are no gap
    recorder.writer.sync()
    first = journal.segments(tmp_path)[0]
    assert first.stat().st_size == start_of(first) + 4 * RECORD
    recorder.close()
    assert np.array_equal(journal.read(tmp_path).commands, made)


def test_the_next_segment_can_be_prepared_and_synced_by_other_threads(tmp_path):
    made = commands(50 * SMALL)
    recorder = begin(tmp_path)
    over = threading.Event()

    def work(task):
        while not over.is_set():
            task()

    threads = [threading.Thread(target=work, args=(task,)) for task in (recorder.writer.prepare, recorder.writer.sync)]
    for thread in threads:
        thread.start()
    recorder.write(made)
    over.set()
    for thread in threads:
        thread.join()
    recorder.close()
    assert np.array_equal(journal.read(tmp_path).commands, made)
    assert sorted(tmp_path.iterdir()) == journal.segments(tmp_path)


@pytest.mark.parametrize("count", [0, 5, SMALL, SMALL + 3])
def test_it_is_gone_on_with_where_it_ended(tmp_path, count):
    made = commands(40)
    recorder = begin(tmp_path)
    recorder.write(made[:count])
    recorder.close()
    for wrong in ((count + 1, recorder.check ^ 1), (count, recorder.check), (count + 2, recorder.check)):
        with pytest.raises(JournalError, match="written to since recovery"):
            journal.Writer(tmp_path, CONFIG, SMALL, *wrong)
    again = Recorder(journal.Writer(tmp_path, CONFIG, SMALL, count + 1, recorder.check), count, recorder.check)
    assert again.room == SMALL - count % SMALL
    again.write(made[count:])
    again.close()
    assert np.array_equal(journal.read(tmp_path).commands, made)


def test_a_journal_is_never_overwritten(tmp_path):
    path = write(tmp_path, commands(3))[0]
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="there is a journal already"):
        journal.Writer(tmp_path, CONFIG)
    assert path.read_bytes() == before


def test_two_venues_cannot_write_one_journal(tmp_path):
    recorder = begin(tmp_path)
    with pytest.raises(ConfigurationError, match="another venue"):
        journal.Writer(tmp_path, CONFIG, SMALL, 1, recorder.check)
    recorder.close()
    journal.Writer(tmp_path, CONFIG, SMALL, 1, recorder.check).close(1)


def test_a_file_system_without_allocation_lets_the_file_grow(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    made = commands(40)
    recorder = begin(tmp_path)
    recorder.write(made)
    assert recorder.writer.path.stat().st_size == recorder.offset
    assert np.array_equal(journal.read(tmp_path).commands, made)
    recorder.close()
    assert np.array_equal(journal.read(tmp_path).commands, made)


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "rename"])
def test_a_full_disk_leaves_the_segment_before_it_as_it_was(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    made = commands(SMALL + 9)
    recorder = begin(tmp_path)
    recorder.write(made[:SMALL])
    before = (recorder.writer.descriptor, recorder.writer.path, sorted(tmp_path.iterdir()))
    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
            patched.setattr(os, call, full)
            recorder.writer.roll(SMALL + 1, recorder.check)
        assert (recorder.writer.descriptor, recorder.writer.path, sorted(tmp_path.iterdir())) == before
        assert np.array_equal(journal.read(tmp_path).commands, made[:SMALL])
    recorder.write(made[SMALL:])  # there is room again
    recorder.close()
    assert np.array_equal(journal.read(tmp_path).commands, made)


def test_a_full_disk_at_the_start_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "posix_fallocate", full)
        journal.Writer(tmp_path, CONFIG)
    assert not list(tmp_path.iterdir()) and len(os.listdir("/proc/self/fd")) == descriptors
    write(tmp_path, commands(3))


def test_a_failed_write_is_not_made_longer_by_closing(tmp_path):
    """After ENOSPC the loop has counted records that the file has not got."""
    recorder = begin(tmp_path)
    recorder.write(commands(5))
    os.ftruncate(recorder.writer.descriptor, recorder.offset - RECORD)
    recorder.close()
    assert len(journal.read(tmp_path).commands) == 4


def test_a_cut_within_a_record_is_a_torn_tail_and_what_precedes_it_can_be_read(tmp_path):
    path = write(tmp_path, commands(10))[0]
    raw = path.read_bytes()
    for cut in (1, 60, RECORD - 1):
        path.write_bytes(raw[:-cut])
        with pytest.raises(TornJournalError, match=rf"record 10 at byte {len(raw) - RECORD} .*--until 9") as caught:
            journal.read(tmp_path)
        assert caught.value.sound == 9 and path.name in str(caught.value)
        assert len(journal.read(tmp_path, until=9).commands) == 9


def test_records_that_were_never_written_are_a_clean_end(tmp_path):
    made = commands(10)
    path = write(tmp_path, made)[0]
    raw = path.read_bytes()
    for zeros in (1, RECORD, 3 * RECORD, 10 * RECORD + 5):
        path.write_bytes(raw + bytes(zeros))
        assert np.array_equal(journal.read(tmp_path).commands, made)
    path.write_bytes(raw[: -3 * RECORD] + bytes(3 * RECORD))
    assert np.array_equal(journal.read(tmp_path).commands, made[:7])


@pytest.mark.parametrize("record", [1, 4, 9, SMALL, SMALL + 1, SMALL + 8, 2 * SMALL, 2 * SMALL + 1])
def test_a_damaged_record_in_the_middle_is_refused_naming_its_byte(tmp_path, record):
    """Each byte of it, in any segment; also if it is the last of a segment, which the next one proves."""
    paths = write(tmp_path, commands(2 * SMALL + 4), SMALL)
    path = paths[(record - 1) // SMALL]
    raw = path.read_bytes()
    offset = start_of(path) + (record - 1) % SMALL * RECORD
    for byte in range(RECORD):
        damaged = bytearray(raw)
        damaged[offset + byte] ^= 1 << byte % 8
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match=rf"{path.name}: record {record} at byte {offset} is damaged") as caught:
            journal.read(tmp_path)
        assert not isinstance(caught.value, TornJournalError)
        assert len(journal.read(tmp_path, record - 1).commands) == record - 1


def test_a_missing_record_in_the_middle_is_refused(tmp_path):
    path = write(tmp_path, commands(10))[0]
    raw = path.read_bytes()
    path.write_bytes(raw[: -5 * RECORD] + raw[-4 * RECORD :])
    with pytest.raises(JournalError, match="record 6"):
        journal.read(tmp_path)
    path.write_bytes(raw[: -5 * RECORD] + bytes(RECORD) + raw[-4 * RECORD :])
    with pytest.raises(JournalError, match="record 6"):
        journal.read(tmp_path)


def test_a_missing_end_of_a_segment_and_a_missing_segment_are_refused(tmp_path):
    paths = write(tmp_path, commands(50), SMALL)
    raw = paths[1].read_bytes()
    offset = len(raw) - RECORD
    for content in (raw[:-RECORD], raw[:-RECORD] + bytes(RECORD)):
        paths[1].write_bytes(content)
        message = rf"{paths[1].name}: ends at byte {offset} before record {2 * SMALL}, .*{paths[2].name}"
        with pytest.raises(JournalError, match=message):
            journal.read(tmp_path)
    paths[1].write_bytes(raw[:-1])
    with pytest.raises(JournalError, match=rf"{paths[1].name}: record {2 * SMALL} at byte {offset} is damaged"):
        journal.read(tmp_path)
    paths[1].unlink()
    with pytest.raises(JournalError, match=rf"{paths[0].name}: ends .*missing"):
        journal.read(tmp_path)
    assert len(journal.read(tmp_path, SMALL).commands) == SMALL
    paths[0].unlink()
    with pytest.raises(JournalError, match="those before it are missing"):
        journal.read(tmp_path)


def test_a_segment_of_another_run_is_refused(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    paths = write(tmp_path / "a", commands(50), SMALL)
    made = commands(50)
    made["account"] = 1
    others = write(tmp_path / "b", made, SMALL)
    paths[1].write_bytes(others[1].read_bytes())
    with pytest.raises(JournalError, match="another run"):
        journal.read(tmp_path / "a")
    others[1].rename(tmp_path / "b" / "000000000018.journal")
    with pytest.raises(JournalError, match="renamed"):
        journal.read(tmp_path / "b")


def test_records_do_not_fit_under_another_configuration(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    path = write(tmp_path / "a", commands(5))[0]
    records = path.read_bytes()[-5 * RECORD :]
    other = write(tmp_path / "b", commands(0), config=CONFIG.model_copy(update={"accounts": 3}))[0]
    other.write_bytes(other.read_bytes() + records)
    with pytest.raises(JournalError, match="record 1 at byte .* damaged"):
        journal.read(tmp_path / "b")


@pytest.mark.parametrize("records", [0, 1, 5])
def test_a_damaged_header_is_refused_unless_nothing_follows_it(tmp_path, records):
    path = write(tmp_path, commands(records))[0]
    raw = path.read_bytes()
    start = start_of(path)
    for byte in (0, 9, 20, 40, start - 1):
        damaged = bytearray(raw)
        damaged[byte] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match="header") as caught:
            journal.read(tmp_path)
        assert isinstance(caught.value, TornJournalError) == (records == 0)


def test_a_header_that_was_never_wholly_written_is_a_torn_tail(tmp_path):
    paths = write(tmp_path, commands(SMALL + 1), SMALL)
    raw = paths[1].read_bytes()
    for header in (0, 5, 31, 32, 100):
        for zeros in (0, 1000 * RECORD):
            paths[1].write_bytes(raw[:header] + bytes(zeros))
            with pytest.raises(TornJournalError, match=f"--until {SMALL}") as caught:
                journal.read(tmp_path)
            assert caught.value.sound == SMALL and len(journal.read(tmp_path, SMALL).commands) == SMALL
    first = paths[0].read_bytes()
    paths[0].write_bytes(first[:50])
    with pytest.raises(JournalError, match="header") as refused:
        journal.read(tmp_path)
    assert not isinstance(refused.value, TornJournalError)


def test_another_version_a_foreign_file_and_no_journal_are_refused(tmp_path):
    with pytest.raises(JournalError, match="name the directory of a run"):
        journal.read(tmp_path)
    path = tmp_path / "000000000001.journal"
    path.write_bytes(b"AARJRNL1" + bytes(500))
    with pytest.raises(JournalError, match="another version"):
        journal.read(tmp_path)
    path.rename(tmp_path / "commands.journal")
    with pytest.raises(JournalError, match="not a segment of a journal of this version"):
        journal.read(tmp_path)
