"""A journal is read back as it was written; every kind of damage is found, named and placed."""

import os
from pathlib import Path

import numpy as np
import pytest

from exchange import journal
from exchange.config import EngineConfig, InstrumentConfig
from exchange.engine import Engine
from exchange.errors import JournalError, TornJournalError
from exchange.replay import as_words, replay
from exchange.types import COMMAND, CommandKind

CONFIG = EngineConfig(instruments=(InstrumentConfig(price_levels=128),), accounts=2, max_orders=64)
RECORD = COMMAND.itemsize


def commands(count: int) -> np.ndarray:
    made = np.zeros(count, COMMAND)
    made["sequence"] = np.arange(1, count + 1)
    made["kind"] = CommandKind.DEPOSIT_CASH
    made["quantity_lots"] = np.arange(1, count + 1)
    made["received_ns"] = np.arange(count) * 1000
    return made


def write(directory: Path, made: np.ndarray) -> Path:
    descriptor, check = journal.create(directory, CONFIG)
    words = as_words(made)
    for first in range(0, len(made), 7):  # in batches, as the venue does
        last = min(first + 7, len(made))
        check = journal.seal(words, first, last, check)
        os.write(descriptor, words[first:last].tobytes())
    os.close(descriptor)
    return directory / journal.FILE_NAME


def test_what_was_written_is_read_with_its_configuration(tmp_path):
    made = commands(50)
    write(tmp_path, made)
    read = journal.read(tmp_path)
    assert read.config == CONFIG
    assert np.array_equal(read.commands, made)


def test_a_replay_of_a_journal_is_the_engine_that_wrote_it(tmp_path):
    made = commands(20)
    engine = Engine(CONFIG)
    engine.apply(made)
    write(tmp_path, made)
    assert replay(*journal.read(tmp_path)).engine.state_hash() == engine.state_hash()


def test_an_empty_journal_is_sound(tmp_path):
    write(tmp_path, commands(0))
    assert len(journal.read(tmp_path).commands) == 0


def test_a_journal_is_never_overwritten(tmp_path):
    path = write(tmp_path, commands(3))
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        journal.create(tmp_path, CONFIG)
    assert path.read_bytes() == before


def test_a_cut_within_a_record_is_a_torn_tail_and_what_precedes_it_can_be_read(tmp_path):
    path = write(tmp_path, commands(10))
    raw = path.read_bytes()
    for cut in (1, 60, RECORD - 1):
        path.write_bytes(raw[:-cut])
        with pytest.raises(TornJournalError, match=rf"record 10, at byte {len(raw) - RECORD}.*--until 9") as caught:
            journal.read(tmp_path)
        assert caught.value.sound == 9
        assert len(journal.read(tmp_path, until=9).commands) == 9


def test_records_that_were_never_written_are_a_torn_tail(tmp_path):
    path = write(tmp_path, commands(10))
    raw = path.read_bytes()
    path.write_bytes(raw[: -3 * RECORD] + bytes(3 * RECORD))
    with pytest.raises(TornJournalError, match="from record 8.*--until 7"):
        journal.read(tmp_path)


@pytest.mark.parametrize("record", [1, 4, 9])
def test_a_damaged_record_in_the_middle_is_refused_naming_its_byte(tmp_path, record):
    path = write(tmp_path, commands(10))
    raw = bytearray(path.read_bytes())
    offset = len(raw) - (10 - record + 1) * RECORD
    for byte in range(0, RECORD, 11):
        damaged = bytearray(raw)
        damaged[offset + byte] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match=rf"record {record} at byte {offset} ") as caught:
            journal.read(tmp_path)
        assert not isinstance(caught.value, TornJournalError)


def test_a_missing_record_in_the_middle_is_refused(tmp_path):
    path = write(tmp_path, commands(10))
    raw = path.read_bytes()
    path.write_bytes(raw[: -5 * RECORD] + raw[-4 * RECORD :])
    with pytest.raises(JournalError, match="record 6"):
        journal.read(tmp_path)


def test_records_do_not_fit_under_another_configuration(tmp_path):
    path = write(tmp_path, commands(5))
    records = path.read_bytes()[-5 * RECORD :]
    other = tmp_path / "other"
    other.mkdir()
    descriptor, _ = journal.create(other, CONFIG.model_copy(update={"accounts": 3}))
    os.write(descriptor, records)
    os.close(descriptor)
    with pytest.raises(JournalError, match="record 1"):
        journal.read(other)


def test_a_damaged_header_and_a_foreign_file_are_refused(tmp_path):
    path = write(tmp_path, commands(5))
    raw = bytearray(path.read_bytes())
    raw[40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(JournalError, match="header"):
        journal.read(tmp_path)
    path.write_bytes(b"something else entirely")
    with pytest.raises(JournalError, match="not a journal"):
        journal.read(tmp_path)
    path.write_bytes(bytes(raw[:50]))
    with pytest.raises(TornJournalError, match="within its header"):
        journal.read(tmp_path)
    path.unlink()
    with pytest.raises(JournalError, match="name the directory of a run"):
        journal.read(tmp_path)
