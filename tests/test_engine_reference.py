"""The engine against what others made of the same orders: a benchmark's report stream, and an exchange's recorded day.

Data: ../shared/data/README.md says what it is and where it comes from; where it is absent, these tests are skipped.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zstandard

from aar_swarm import lobster
from aar_swarm.lobster import MessageType
from exchange import book
from exchange.config import EngineConfig, InstrumentConfig
from exchange.engine import Engine, apply_commands, events_bound
from exchange.jit import kernel
from exchange.state import Array
from exchange.types import COMMAND, EVENT, MAX_CASH, MAX_QUANTITY_LOTS, CommandKind, EventKind, OrderType, Reason

_PLACE, _CANCEL, _REPLACE = int(CommandKind.PLACE_ORDER), int(CommandKind.CANCEL_ORDER), int(CommandKind.REPLACE_ORDER)
_ACCEPTED, _REJECTED, _FILLED = (
    int(EventKind.ORDER_ACCEPTED),
    int(EventKind.ORDER_REJECTED),
    int(EventKind.ORDER_FILLED),
)
_CANCELLED, _REPLACED = int(EventKind.ORDER_CANCELLED), int(EventKind.ORDER_REPLACED)
_CANCEL_REJECTED = int(EventKind.CANCEL_REJECTED)


def rich_engine(price_levels: int, max_orders: int) -> Engine:
    """One instrument, open, and one account that can pay for everything; it may trade with itself (SelfTrade.OFF)."""
    engine = Engine(
        EngineConfig(instruments=(InstrumentConfig(price_levels=price_levels),), accounts=1, max_orders=max_orders)
    )
    commands = np.zeros(3, COMMAND)
    commands["sequence"] = (1, 2, 3)
    commands["kind"] = (CommandKind.DEPOSIT_CASH, CommandKind.DEPOSIT_POSITION, CommandKind.OPEN_SESSION)
    commands["quantity_lots"] = (MAX_CASH, MAX_QUANTITY_LOTS, 0)
    kinds = engine.apply(commands)["kind"].tolist()
    assert kinds[:2] == [EventKind.CASH_DEPOSITED, EventKind.POSITION_DEPOSITED]
    assert kinds[-1] == EventKind.SESSION_OPENED
    return engine


# engine-oracle: the reports that independent engines agree on

_MESSAGE = np.dtype(
    [
        ("type", "u1"),
        ("side", "u1"),
        ("ioc", "u1"),
        ("zero", "u1"),
        ("quantity", "<u4"),
        ("number", "<u8"),
        ("order_id", "<u8"),
        ("price", "<i8"),
        ("zeros", "<i8"),
    ]
)
_TYPE, _SIDE, _IOC, _QUANTITY, _THEIR_ID, _PRICE = range(6)
_NEW, _MODIFY = 0, 2  # and 1, a cancel
_HEADER_BYTES = 16
_RING = 1 << 16  # commands of one batch
_NAME, _FILLED_LOTS = range(2)  # what we know of an order of theirs


def read_messages(path: Path) -> Array:
    """int64[n, 6], the columns as named above; the message's number is its row."""
    with path.open("rb") as file:
        records = np.frombuffer(zstandard.ZstdDecompressor().stream_reader(file).read()[_HEADER_BYTES:], _MESSAGE)
    assert (records["number"] == np.arange(len(records))).all()
    assert not records["zero"].any() and not records["zeros"].any()
    return np.stack(
        [records[name].astype(np.int64) for name in ("type", "side", "ioc", "quantity", "order_id", "price")], 1
    )


@kernel
def send_messages(state, messages, at, by_replace, commands, events, orders, their_ids):
    """Turn messages from number `at` on into commands, one after another, and apply each at once.

    A new name must be larger than all before, so that an order of theirs gets a new one of ours with each command that
    needs a name: the command's sequence. received_ns is the message's number, by which its events are told.

    A modify is a CANCEL_ORDER and, if that succeeds, a PLACE_ORDER: exact whatever it changes. Or, by_replace, one
    REPLACE_ORDER to what has been filled and the new quantity. That would be another thing where it left the price and
    added nothing, as ours then keeps its priority; in these workloads none does, which `reports_of` checks.

    Args:
        at: the number of the first message to send.
        by_replace: whether a modify is a replace.
        commands: COMMAND[_RING], all zero but for what this function writes.
        events: EVENT[m] to fill; half of it holds whatever two commands can cause.
        orders: int64[n, 2]: by their id, our name for the order and what it has had filled since it was placed.
        their_ids: int64[n]: by our name.
    Returns: (number of the first message not sent, number of events).
    """
    count = 0
    used = 0
    sequence = state.counters[0]["sequence"]
    enough = events.shape[0] // 2  # for two commands
    while at < messages.shape[0] and used + 2 <= commands.shape[0] and events.shape[0] - count >= enough:
        message = messages[at]
        their_id = message[_THEIR_ID]
        order = orders[their_id]
        kind = _CANCEL
        if message[_TYPE] == _NEW:
            kind = _PLACE
        elif message[_TYPE] == _MODIFY and by_replace:
            kind = _REPLACE
        while kind != 0:
            sequence += 1
            command = commands[used]
            command["sequence"] = sequence
            command["received_ns"] = at
            command["kind"] = kind
            command["target_order_id"] = 0 if kind == _PLACE else order[_NAME]
            command["order_id"] = 0 if kind == _CANCEL else sequence
            command["side"] = message[_SIDE] if kind == _PLACE else 0
            command["order_type"] = message[_IOC] if kind == _PLACE else 0  # LIMIT and IOC are 0 and 1
            command["price_ticks"] = 0 if kind == _CANCEL else message[_PRICE]
            command["quantity_lots"] = message[_QUANTITY]
            if kind == _CANCEL:
                command["quantity_lots"] = 0
            elif kind == _REPLACE:
                command["quantity_lots"] += order[_FILLED_LOTS]
            their_ids[sequence] = their_id
            _, new = apply_commands(state, commands, used, used + 1, events[count:])
            used += 1
            done = kind
            kind = 0
            for number in range(count, count + new):
                event = events[number]
                if event["kind"] == _FILLED:
                    orders[their_ids[event["order_id"]], _FILLED_LOTS] += event["quantity_lots"]
                    orders[their_ids[event["maker_order_id"]], _FILLED_LOTS] += event["quantity_lots"]
                elif event["kind"] == _ACCEPTED:
                    order[_NAME] = sequence
                    order[_FILLED_LOTS] = 0
                elif event["kind"] == _REPLACED:
                    order[_NAME] = sequence
                elif event["kind"] == _CANCELLED and done == _CANCEL and message[_TYPE] == _MODIFY:
                    kind = _PLACE
            count += new
        at += 1
    return at, count


def reports_of(events: Array, messages: Array, their_ids: Array) -> Array:
    """int64[n, 6]: type, message number, and the fields of the type in their order; −1 where there is none."""
    kinds, numbers = events["kind"], events["time_ns"]
    modify = messages[numbers, _TYPE] == _MODIFY
    refused = (kinds == _REJECTED) | (kinds == _CANCEL_REJECTED)
    expected = np.where(kinds == _REPLACED, Reason.LOST_PRIORITY, Reason.UNKNOWN_ORDER)
    wrong = np.flatnonzero((refused | (kinds == _REPLACED)) & (events["reason"] != expected)).tolist()
    assert not wrong, f"{len(wrong)} refused or replaced with another reason, the first: {events[wrong[0]]}"
    types = np.full(len(events), -1)
    for kind, of_modify, of_others in (
        (_ACCEPTED, 3, 0),
        (_REPLACED, 3, -1),
        (_FILLED, 1, 1),
        (_CANCELLED, -1, 2),  # the first half of a modify is no report
        (_REJECTED, 5, -1),
        (_CANCEL_REJECTED, 5, 4),
    ):
        types[kinds == kind] = np.where(modify, of_modify, of_others)[kinds == kind]
    rows = np.full((len(events), 6), -1)
    rows[:, 0], rows[:, 1] = types, numbers
    own = their_ids[events["order_id"]]
    order = np.stack([events["side"], own, events["price_ticks"], events["leaves_lots"]], 1)
    entered, cancelled = (types == 0) | (types == 3), types == 2
    rows[entered, 2:] = order[entered]
    rows[cancelled, 2:5] = order[cancelled, :3]
    trade = np.stack([events["price_ticks"], events["quantity_lots"], their_ids[events["maker_order_id"]], own], 1)
    rows[types == 1, 2:] = trade[types == 1]
    rows[refused, 2] = messages[numbers[refused], _THEIR_ID]
    rows = rows[types >= 0]
    return rows[np.argsort(rows[:, 1] * 8 + rows[:, 0], kind="stable")]


def reports(messages: Array, by_replace: bool) -> Iterator[Array]:
    """The engine's reports about the messages, as `reports_of` has them, a part at a time."""
    engine = rich_engine(price_levels=1 << 16, max_orders=1 << 16)
    commands = np.zeros(_RING, COMMAND)
    events = np.zeros(4 * events_bound(engine.state), EVENT)
    orders = np.zeros((messages[:, _THEIR_ID].max() + 1, 2), np.int64)
    their_ids = np.zeros(2 * len(messages) + 4, np.int64)
    at = 0
    while at < len(messages):
        at, count = send_messages(engine.state, messages, at, by_replace, commands, events, orders, their_ids)
        yield reports_of(events[:count], messages, their_ids)


def lines(rows: Array) -> str:
    frame = pl.DataFrame(rows, schema=[str(number) for number in range(rows.shape[1])], orient="row")
    fields = [pl.when(pl.col(name) >= 0).then(pl.col(name)) for name in frame.columns]
    return "\n".join(frame.select(pl.concat_str(fields, separator=",", ignore_nulls=True)).to_series().to_list())


@pytest.mark.parametrize("by_replace", [False, True], ids=["cancel-and-place", "replace"])
@pytest.mark.parametrize("workload", ["normal", "flash-crash"])
def test_reports_are_those_that_independent_engines_agree_on(data: Path, workload: str, by_replace: bool) -> None:
    folder = data / "engine-oracle"
    expected = {
        name: digest for digest, name in map(str.split, (folder / "report_sha256.txt").read_text().splitlines())
    }
    messages = read_messages(folder / f"orders_{workload}_s23_n1000000.bin.zst")
    digest = hashlib.sha256()
    types: Counter[int] = Counter()
    for number, rows in enumerate(reports(messages, by_replace)):
        digest.update(("\n" * (number > 0) + lines(rows)).encode())
        types.update(dict(enumerate(np.bincount(rows[:, 0], minlength=6).tolist())))
    print(f"\n{workload}: {len(messages)} messages, reports by type {dict(types)}")
    assert min(types.values()) > 0
    assert digest.hexdigest() == expected[f"{workload}_seed23_count1000000_reports.txt"], f"reports by type {types}"


# lobster: an exchange's day


@kernel
def apply_and_look(state, commands, ends, events, looks):
    """Apply commands up to each of `ends`, and write into looks[i] the best levels after ends[i].

    Args:
        events: EVENT[m] to fill, with room for all.
        looks: int64[len(ends), 2 sides, levels, 2], all zero: price and quantity.
    Returns: number of events.
    """
    count = 0
    first = 0
    for number in range(ends.shape[0]):
        while first < ends[number]:
            first, new = apply_commands(state, commands, first, ends[number], events[count:])
            count += new
        for side in range(2):
            price = np.int64(book.best(state, side))
            level = 0
            while level < looks.shape[2] and book.is_price(state, side, price):
                looks[number, side, level, 0] = price
                looks[number, side, level, 1] = state.levels[side, price]["quantity_lots"]
                price = np.int64(book.next_price(state, side, price))
                level += 1
    return count


def replay_day(day: lobster.Day, flow: Array) -> tuple[Array, Array, Array]:
    """The day's flow through the engine: the rows after which the book should be the recorded one (-1: the opening
    book), the books after them as `books_in_ticks` has them, and all events."""
    engine = rich_engine(lobster.price_levels_needed(flow), max_orders=1 << 16)
    commands = np.zeros(len(flow), COMMAND)
    for name in ("kind", "order_id", "target_order_id", "side", "order_type", "price_ticks", "quantity_lots"):
        commands[name] = flow[name]
    commands["received_ns"] = flow["time_ns"]
    commands["sequence"] = int(engine.state.counters["sequence"][0]) + 1 + np.arange(len(flow))
    ends = np.flatnonzero(np.diff(flow["row"], append=len(day.messages))) + 1
    looks = np.zeros((len(ends), 2, day.levels, 2), np.int64)
    events = np.zeros(4 * len(flow) + events_bound(engine.state), EVENT)
    count = apply_and_look(engine.state, commands, ends, events, looks)
    assert int(engine.state.counters["sequence"][0]) == commands["sequence"][-1]
    events = events[:count]
    events["sequence"] -= commands["sequence"][0]  # the number of its action
    refused = np.flatnonzero(np.isin(events["kind"], (_REJECTED, _CANCEL_REJECTED))).tolist()
    assert not refused, f"{len(refused)} actions refused, the first: {events[refused[0]]}"
    return flow["row"][ends - 1], looks, events


@pytest.fixture(scope="module")
def day(data: Path) -> lobster.Day:
    return lobster.read(data / "lobster" / "LOBSTER_SampleFile_GOOG_2012-06-21_10.zip")


@pytest.fixture(scope="module")
def flow(day: lobster.Day) -> Array:
    return lobster.order_flow(day)


@pytest.fixture(scope="module")
def replayed(day: lobster.Day, flow: Array) -> tuple[Array, Array, Array]:
    return replay_day(day, flow)


def test_recorded_day_through_the_engine_is_the_recorded_book(
    day: lobster.Day, replayed: tuple[Array, Array, Array]
) -> None:
    rows, looks, _ = replayed
    # Every row is compared but those inside a run of executions, where the aggressor is not yet done.
    visible = np.concatenate(([0], np.cumsum(day.messages["type"] <= MessageType.EXECUTE)))
    latest = np.searchsorted(rows, np.arange(len(day.messages)), side="right") - 1
    compared = visible[rows[latest] + 1] == visible[1:]
    agrees = (looks[latest] == lobster.books_in_ticks(day)).all(axis=(2, 3))
    both = agrees.all(axis=1)
    wrong = np.flatnonzero(compared & ~both)
    figures = f"{(compared & both).sum()} of {compared.sum()} rows agree at all {day.levels} levels of both sides"
    print(f"\n{figures}")
    assert compared.sum() == 145_883 and day.levels == 10, figures
    assert not len(wrong), f"{figures}; the first that do not: {wrong[:5]}"


def test_recorded_aggressors_fills_are_the_exchanges(
    day: lobster.Day, flow: Array, replayed: tuple[Array, Array, Array]
) -> None:
    """Each run of executions is one IOC order; its fills, as (maker, price, lots), are compared with the executions.

    A maker is the exchange's order that ours stands for. Orders that the file never shows being added all have the
    name 0, and what such makers gave one after another at one price is one fill: one order of ours stands for several.
    """
    _, first_actions = np.unique(flow["row"], return_index=True)
    adds = flow[first_actions]  # of each row; what else a row does is about what it brings into sight
    adds = adds[(adds["row"] >= 0) & (day.messages["type"][adds["row"]] == MessageType.ADD)]
    names = np.zeros(flow["order_id"].max() + 1, np.int64)
    names[adds["order_id"]] = day.messages["order_id"][adds["row"]]

    aggressors = flow["row"][flow["order_type"] == OrderType.IOC]  # by the last row of the run
    executed = day.messages[day.messages["type"] == MessageType.EXECUTE]
    runs = np.searchsorted(aggressors, np.flatnonzero(day.messages["type"] == MessageType.EXECUTE))
    makers = np.where(np.isin(executed["order_id"], names), executed["order_id"], 0)
    recorded = fills_by_run(len(aggressors), runs, makers, executed["price"] // 100, executed["size"])

    fills = replayed[2][replayed[2]["kind"] == _FILLED]
    runs = np.searchsorted(aggressors, flow["row"][fills["sequence"]])
    assert (aggressors[runs] == flow["row"][fills["sequence"]]).all()
    makers = names[fills["maker_order_id"]]
    ours = fills_by_run(len(aggressors), runs, makers, fills["price_ticks"], fills["quantity_lots"])

    shown_all, shown_same, all_, same = 0, 0, 0, 0
    for theirs, own in zip(recorded, ours, strict=True):
        equal = Counter(theirs) & Counter(own)
        all_ += len(theirs)
        same += equal.total()
        shown_all += sum(maker > 0 for maker, _, _ in theirs)
        shown_same += sum(count for (maker, _, _), count in equal.items() if maker)
    exact = sum(theirs == own for theirs, own in zip(recorded, ours, strict=True))
    figures = (
        f"{exact} of {len(recorded)} aggressors ({exact / len(recorded):.2%}) have exactly the exchange's fills; "
        f"{same} of {all_} fills ({same / all_:.2%}) are the exchange's; of those by makers that the file shows being "
        f"added, {shown_same} of {shown_all} ({shown_same / shown_all:.2%})"
    )
    print(f"\n{figures}")
    assert len(recorded) == 5_931 and len(executed) == 7_765, figures
    assert exact >= 0.985 * len(recorded) and same >= 0.985 * all_ and shown_same >= 0.995 * shown_all, figures


def fills_by_run(
    count: int, runs: Array, makers: Array, prices: Array, lots: Array
) -> list[list[tuple[int, int, int]]]:
    """Each run's fills as (maker, price, lots), in order."""
    fills: list[list[tuple[int, int, int]]] = [[] for _ in range(count)]
    for run, maker, price, quantity in zip(runs.tolist(), makers.tolist(), prices.tolist(), lots.tolist(), strict=True):
        if not maker and fills[run] and fills[run][-1][:2] == (0, price):
            quantity += fills[run].pop()[2]
        fills[run].append((maker, price, quantity))
    return fills
