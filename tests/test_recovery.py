"""After any death a venue goes on with every command that was wholly written; damage is told, never guessed over."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from exchange import journal, replay, snapshots
from exchange.config import BreakerConfig, EngineConfig, InstrumentConfig
from exchange.engine import Engine
from exchange.errors import ConfigurationError, JournalError, TornJournalError
from exchange.recovery import Recovered, recover
from exchange.types import COMMAND, CommandKind
from tests.test_journal import RECORD, Recorder, begin, start_of, write

ACCOUNTS = 8
BREAKER = BreakerConfig(price_move_bps=9000, price_window_ns=10**6, sell_volume_lots=1 << 30, sell_window_ns=10**6)
CONFIG = EngineConfig(
    instruments=(InstrumentConfig(price_levels=128, breaker=BREAKER), InstrumentConfig(price_levels=64)),
    accounts=ACCOUNTS,
    max_orders=64,
)
SMALL = 100
"""Records a segment."""


@pytest.fixture(autouse=True)
def few_recent_events(monkeypatch):
    """So that the ring of the recent ones turns."""
    for module in (replay, snapshots):
        monkeypatch.setattr(module, "RECENT_EVENTS", 256)


def commands(count: int, seed: int = 1) -> np.ndarray:
    """Deposits, the opening, then limit orders that rest and match, and cancels."""
    rng = np.random.default_rng(seed)
    made = np.zeros(count, COMMAND)
    made["sequence"] = np.arange(1, count + 1)
    made["received_ns"] = np.arange(count) * 1000 + 7
    made["kind"] = np.where(rng.random(count) < 0.4, CommandKind.CANCEL_ORDER, CommandKind.PLACE_ORDER)
    made["account"] = rng.integers(0, ACCOUNTS, count)
    made["instrument"] = rng.integers(0, 2, count)
    made["order_id"] = np.arange(1, count + 1)
    made["target_order_id"] = made["order_id"] - rng.integers(1, 30, count)
    made["account"] = made["order_id"] % ACCOUNTS
    cancels = made["kind"] == CommandKind.CANCEL_ORDER
    made["account"][cancels] = made["target_order_id"][cancels] % ACCOUNTS
    made["side"] = rng.integers(0, 2, count)
    made["price_ticks"] = rng.integers(25, 40, count)
    made["quantity_lots"] = rng.integers(1, 20, count)
    start = made[: 2 * ACCOUNTS + 1]
    start["kind"] = CommandKind.DEPOSIT_POSITION
    start["kind"][::2] = CommandKind.DEPOSIT_CASH
    start["kind"][-1] = CommandKind.OPEN_SESSION
    start["account"] = np.arange(len(start)) // 2 % ACCOUNTS
    start["quantity_lots"] = 1 << 20
    return made


def check_same(found: Recovered, made: np.ndarray) -> None:
    """All that recovery gives is what an engine that is given the same commands at once has."""
    engine = Engine(CONFIG)
    events = engine.apply(made)
    assert found.next_sequence == len(made) + 1
    assert found.engine.state_hash() == engine.state_hash()
    assert found.events == len(events)
    assert found.events_digest == int(replay.digest_events(0, replay.as_words(events), len(events)))
    assert np.array_equal(found.recent, events[-replay.RECENT_EVENTS :])
    if len(made):
        assert (found.check, found.last_ns) == (int(made["check"][-1]), int(made["received_ns"][-1]))
    else:
        assert (found.check, found.last_ns) == (journal.first_check(CONFIG), 0)


def killed(directory: Path, made: np.ndarray) -> Path:
    """What a venue leaves that was killed: segments with zeros behind, and a prepared one."""
    live = directory / "live"
    live.mkdir()
    recorder = begin(live, SMALL, CONFIG)
    recorder.write(made)
    recorder.writer.prepare()
    left = directory / "left"
    shutil.copytree(live, left)
    recorder.close()
    return left


def snapshot_at(directory: Path, sequence: int, config: EngineConfig = CONFIG) -> Path:
    follower = replay.Follower(config)
    follower.apply(journal.read(directory).commands[:sequence])
    return snapshots.write_from(directory, follower)


def go_on(directory: Path, found: Recovered, made: np.ndarray) -> None:
    """Write the rest of the commands to a recovered journal."""
    writer = journal.Writer(directory, CONFIG, SMALL, found.next_sequence, found.check)
    recorder = Recorder(writer, found.next_sequence - 1, found.check)
    recorder.write(made[found.next_sequence - 1 :])
    recorder.close()


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250, 1000])
def test_a_killed_venue_goes_on_where_it_was(tmp_path, count):
    made = commands(1200)
    left = killed(tmp_path, made[:count])
    found = recover(left, CONFIG)
    check_same(found, made[:count])
    assert not found.warnings and found.commands_replayed == count
    go_on(left, found, made)
    assert np.array_equal(journal.read(left).commands, made)
    check_same(recover(left, CONFIG), made)
    assert sorted(left.iterdir()) == journal.segments(left)


def test_without_a_journal_there_is_a_new_engine(tmp_path):
    found = recover(tmp_path, CONFIG)
    check_same(found, commands(20)[:0])
    assert not list(tmp_path.iterdir())
    go_on(tmp_path, found, commands(50))
    check_same(recover(tmp_path, CONFIG), journal.read(tmp_path).commands)
    with pytest.raises(FileNotFoundError):
        recover(tmp_path / "nowhere", CONFIG)


@pytest.mark.parametrize("zeros", [0, 40 * RECORD])
def test_it_may_be_killed_at_any_byte(tmp_path, zeros):
    made = commands(260)
    paths = write(tmp_path, made, SMALL, CONFIG)
    whole = paths[-1].read_bytes()
    whole_sizes = [start_of(paths[-1]) + number * RECORD for number in range(61)]
    before = None
    for size in range(whole_sizes[-4], len(whole) + 1):
        left = whole[:size] + bytes(zeros)
        paths[-1].write_bytes(left)
        found = recover(tmp_path, CONFIG)
        # A record whose missing bytes are zeros, behind a file of zeros, is whole.
        sound = max(number for number in range(61) if left[: whole_sizes[number]] == whole[: whole_sizes[number]])
        assert found.next_sequence == 200 + sound + 1
        rest = left[whole_sizes[sound] :]
        assert len(found.warnings) == any(rest)
        if found.warnings:
            assert f"{paths[-1].name}: was never wholly written from record {201 + sound} " in found.warnings[0]
            assert f"at byte {whole_sizes[sound]} on" in found.warnings[0]
            assert paths[-1].stat().st_size == whole_sizes[sound]
            assert not recover(tmp_path, CONFIG).warnings
        if sound != before:  # the others end in the same engine
            before = sound
            check_same(found, made[: 200 + sound])
            go_on(tmp_path, found, made)
            assert np.array_equal(journal.read(tmp_path).commands, made)


@pytest.mark.parametrize("header", [0, 8, 31, 200])
def test_it_may_be_killed_while_it_began_a_segment(tmp_path, header):
    made = commands(250)
    paths = write(tmp_path, made[:201], SMALL, CONFIG)
    paths[-1].write_bytes(paths[-1].read_bytes()[:header] + bytes(3000))
    found = recover(tmp_path, CONFIG)
    assert len(found.warnings) == 1 and f"{paths[-1].name}: " in found.warnings[0]
    assert "header" in found.warnings[0] and "the file was removed" in found.warnings[0]
    check_same(found, made[:200])
    go_on(tmp_path, found, made)
    assert np.array_equal(journal.read(tmp_path).commands, made)
    for path in journal.segments(tmp_path)[1:]:
        path.unlink()
    paths[0].write_bytes(b"AARJ")  # at its very start, too
    found = recover(tmp_path, CONFIG)
    assert len(found.warnings) == 1
    check_same(found, commands(20)[:0])


@pytest.mark.parametrize("record", [1, 57, 100, 101, 200, 201, 258])
def test_damage_in_the_middle_is_refused_naming_its_byte(tmp_path, record):
    paths = write(tmp_path, commands(260), SMALL, CONFIG)
    path = paths[(record - 1) // SMALL]
    raw = path.read_bytes()
    offset = start_of(path) + (record - 1) % SMALL * RECORD
    for byte in (0, 50, RECORD - 1):
        damaged = bytearray(raw)
        damaged[offset + byte] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match=rf"{path.name}: record {record} at byte {offset} is damaged") as caught:
            recover(tmp_path, CONFIG)
        assert not isinstance(caught.value, TornJournalError) and path.read_bytes() == damaged


def test_a_lost_segment_is_refused_whether_or_not_it_would_be_read(tmp_path):
    paths = write(tmp_path, commands(450), SMALL, CONFIG)
    for with_snapshot in (False, True):
        if with_snapshot:
            snapshot_at(tmp_path, 400)
        for path in paths[:4]:
            raw = path.read_bytes()
            path.unlink()
            with pytest.raises(JournalError, match=r"missing|does not end with"):
                recover(tmp_path, CONFIG)
            path.write_bytes(raw)
    recover(tmp_path, CONFIG)


def test_a_journal_that_went_is_not_begun_anew(tmp_path):
    paths = write(tmp_path, commands(150), SMALL, CONFIG)
    snapshot_at(tmp_path, 100)
    paths[1].write_bytes(bytes(50))
    paths[0].unlink()
    with pytest.raises(JournalError, match="missing"):  # and not: an empty segment, so nothing happened yet
        recover(tmp_path, CONFIG)
    paths[1].unlink()
    with pytest.raises(JournalError, match="missing"):
        recover(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accounts": 9}, "accounts is 8 there and 9 here"),
        ({"instruments": CONFIG.instruments[:1]}, "it has 2 instruments and this one 1"),
        (
            {"instruments": (CONFIG.instruments[0], InstrumentConfig(price_levels=64, multiplier=3))},
            r"instruments\.1\.multiplier is 1 there and 3 here",
        ),
        (
            {"instruments": (InstrumentConfig(price_levels=128), CONFIG.instruments[1])},
            r"instruments\.0\.breaker\.price_move_bps is 9000 there and 0 here",
        ),
    ],
    ids=["accounts", "instruments", "multiplier", "breaker"],
)
def test_another_configuration_is_refused_naming_the_setting(tmp_path, change, message):
    write(tmp_path, commands(20), SMALL, CONFIG)
    with pytest.raises(ConfigurationError, match=message):
        recover(tmp_path, CONFIG.model_copy(update=change))


def test_a_journal_in_use_is_left_alone(tmp_path):
    recorder = begin(tmp_path, SMALL, CONFIG)
    with pytest.raises(ConfigurationError, match="another venue"):
        recover(tmp_path, CONFIG)
    recorder.close()


# --- snapshots


@pytest.mark.parametrize("at", [1, 17, 99, 100, 101, 200, 333, 400, 450])
def test_a_snapshot_and_the_tail_are_the_same_as_everything(tmp_path, at):
    made = commands(450)
    write(tmp_path, made, SMALL, CONFIG)
    snapshot_at(tmp_path, at)
    found = recover(tmp_path, CONFIG)
    check_same(found, made)
    assert found.commands_replayed == 450 - at and not found.warnings
    # The free slots, the index and the windows, too, are as they were: what comes then is the same.
    more = commands(1200)[450:]
    engine = Engine(CONFIG)
    engine.apply(made)
    assert np.array_equal(found.engine.apply(more.copy()), engine.apply(more))
    assert found.engine.state_hash() == engine.state_hash()


def test_segments_before_the_snapshot_are_not_read(tmp_path):
    made = commands(450)
    paths = write(tmp_path, made, SMALL, CONFIG)
    snapshot_at(tmp_path, 300)
    raw = bytearray(paths[1].read_bytes())
    raw[-5 * RECORD] ^= 1
    paths[1].write_bytes(raw)
    check_same(recover(tmp_path, CONFIG), made)


def test_the_two_newest_are_kept(tmp_path):
    write(tmp_path, commands(450), SMALL, CONFIG)
    written = [snapshot_at(tmp_path, at) for at in (10, 20, 30, 40)]
    assert snapshots.snapshots(tmp_path) == written[2:]
    earlier = snapshot_at(tmp_path, 35)  # of a journal that lost what 40 had
    assert snapshots.snapshots(tmp_path) == [written[2], earlier]
    snapshot, warnings = snapshots.latest(tmp_path, CONFIG)
    assert snapshot is not None and snapshot.meta.sequence == 35 and not warnings


def damage(path: Path, byte: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[byte] ^= 2
    path.write_bytes(raw)


def cut(path: Path, byte: int) -> None:
    path.write_bytes(path.read_bytes()[:byte])


@pytest.mark.parametrize("harm", [damage, cut])
@pytest.mark.parametrize("byte", [0, 3, 12, 100, -2000, -1])
def test_a_damaged_snapshot_is_passed_over_for_the_one_before(tmp_path, harm, byte):
    made = commands(450)
    write(tmp_path, made, SMALL, CONFIG)
    snapshot_at(tmp_path, 200)
    newest = snapshot_at(tmp_path, 400)
    harm(newest, byte)
    found = recover(tmp_path, CONFIG)
    check_same(found, made)
    assert found.commands_replayed == 250
    assert len(found.warnings) == 1 and f"{newest}: is " in found.warnings[0] and "not used" in found.warnings[0]


def test_snapshots_that_are_all_unsound_only_cost_time(tmp_path):
    made = commands(450)
    write(tmp_path, made, SMALL, CONFIG)
    for at in (200, 400):
        damage(snapshot_at(tmp_path, at), 500)
    found = recover(tmp_path, CONFIG)
    check_same(found, made)
    assert found.commands_replayed == 450 and len(found.warnings) == 2


def test_a_snapshot_of_another_configuration_or_layout_is_not_used(tmp_path):
    made = commands(450)
    write(tmp_path, made, SMALL, CONFIG)
    other = CONFIG.model_copy(update={"max_orders": 65})
    path = snapshot_at(tmp_path, 400, other)
    with pytest.raises(snapshots.SnapshotError, match="another configuration"):
        snapshots.load(path, CONFIG)
    found = recover(tmp_path, CONFIG)
    check_same(found, made)
    assert "another configuration" in found.warnings[0]

    follower = replay.Follower(CONFIG)
    follower.apply(made)
    assert follower.check is not None
    meta = snapshots.Meta(follower.sequence, follower.check, 1, follower.events, follower.events_digest)
    state = follower.engine.state
    strange = state._replace(positions=state.positions.view(np.int64))
    path = snapshots.write(tmp_path, CONFIG, strange, meta, follower.recent())
    with pytest.raises(snapshots.SnapshotError, match="laid out differently"):
        snapshots.load(path, CONFIG)
    with pytest.raises(ValueError, match="0 recent events"):
        snapshots.write(tmp_path, CONFIG, state, meta, follower.recent()[:0])


@pytest.mark.parametrize("at", [150, 200, 400, 440])
def test_a_snapshot_that_is_not_of_this_journal_is_not_used(tmp_path, at):
    """Of another run, or of a part that a power cut took."""
    made = commands(420)
    write(tmp_path, made, SMALL, CONFIG)
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", commands(450, seed=2), SMALL, CONFIG)
    snapshot_at(tmp_path / "other", at).rename(tmp_path / f"{at:012d}.snapshot")
    found = recover(tmp_path, CONFIG)
    check_same(found, made)
    assert found.commands_replayed == 420 and "not of this journal" in found.warnings[0]


def test_a_full_disk_leaves_the_snapshots_as_they_were(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path, commands(450), SMALL, CONFIG)
    snapshot_at(tmp_path, 200)
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(os, "fsync", full)
        snapshot_at(tmp_path, 300)
    assert sorted(tmp_path.iterdir()) == before


def test_a_snapshot_says_what_it_holds(tmp_path):
    """The header can be read by anything."""
    write(tmp_path, commands(450), SMALL, CONFIG)
    raw = snapshot_at(tmp_path, 200).read_bytes()
    header = json.loads(raw[16 : 16 + int.from_bytes(raw[8:16], "little")])
    assert header["meta"]["sequence"] == 200
    assert [array["name"] for array in header["arrays"]] == [*Engine(CONFIG).state._fields, "recent"]


# --- the process that makes them


def test_each_segment_that_ends_gives_a_snapshot(tmp_path, monkeypatch):
    monkeypatch.undo()  # another process makes them
    made = commands(950)
    recorder = begin(tmp_path, SMALL, CONFIG)
    snapshotter = snapshots.Snapshotter(tmp_path)
    told = 0
    for first in range(0, 950, 50):
        recorder.write(made[first : first + 50])
        for path in recorder.ended[told:]:
            snapshotter.segment_finished(path)
        told = len(recorder.ended)
        recorder.writer.prepare()
    snapshotter.close()
    recorder.close()
    assert snapshotter.failed is None and told == 9
    assert [path.name for path in snapshots.snapshots(tmp_path)] == ["000000000800.snapshot", "000000000900.snapshot"]
    found = recover(tmp_path, CONFIG)
    check_same(found, made)
    assert found.commands_replayed == 50


def test_after_a_recovery_it_goes_on_from_the_last_snapshot(tmp_path, monkeypatch):
    monkeypatch.undo()
    made = commands(950)
    write(tmp_path, made[:450], SMALL, CONFIG)
    snapshot_at(tmp_path, 410)
    found = recover(tmp_path, CONFIG)
    recorder = Recorder(
        journal.Writer(tmp_path, CONFIG, SMALL, found.next_sequence, found.check), found.next_sequence - 1, found.check
    )
    snapshotter = snapshots.Snapshotter(tmp_path)
    recorder.write(made[450:])
    for path in recorder.ended:
        snapshotter.segment_finished(path)
    snapshotter.close()
    recorder.close()
    assert snapshotter.failed is None
    found = recover(tmp_path, CONFIG)
    check_same(found, made)
    assert found.commands_replayed == 50


def test_what_goes_wrong_beside_the_venue_is_told_and_no_more(tmp_path):
    made = commands(450)
    recorder = begin(tmp_path, SMALL, CONFIG)
    recorder.write(made)
    damage(recorder.ended[1], start_of(recorder.ended[1]) + 5 * RECORD)
    snapshotter = snapshots.Snapshotter(tmp_path)
    for path in recorder.ended:
        snapshotter.segment_finished(path)
    snapshotter.close()
    assert snapshotter.failed is not None and "000000000101.journal: record 106 at byte" in snapshotter.failed
    assert [path.name for path in snapshots.snapshots(tmp_path)] == ["000000000100.snapshot"]
    recorder.close()
