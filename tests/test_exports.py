"""Exports: LOBSTER's files give our own book back, and the log of race studies tells every message and its order."""

import csv
from pathlib import Path

import numpy as np

from aar_swarm import lobster as recordings
from aar_swarm.analysis.tables import trace_tops
from aar_swarm.exports import hft_races, lobster
from exchange.config import EngineConfig, InstrumentConfig
from exchange.journal import Journal
from exchange.replay import replay
from exchange.types import NO_BID, CommandKind, OrderType, Side
from tests.comparison import session_of
from tests.hand_made import MARKET, command, order, records_of
from tests.test_races import cancel, journal_of, replace

BUY, SELL, IOC = Side.BUY, Side.SELL, OrderType.IOC
UNIT = 100  # a tick is a cent


def random_session(seed: int, money: bool = False) -> tuple[EngineConfig, np.ndarray]:
    """With auctions, batches, halts and replaces; with money, liquidations too."""
    commands, _, oracle = session_of(seed, 400, money)
    return oracle.config, commands


def story() -> Journal:
    """One of each thing that can happen to an order in continuous trading."""
    return journal_of(
        order(0, 1, SELL, 1010, 50, 10),
        order(0, 2, SELL, 1020, 50, 11),
        order(1, 1, BUY, 1015, 70, 12),  # takes 50, and 20 rest
        order(2, 1, SELL, 1015, 5, 13, IOC),
        order(2, 2, SELL, 1016, 5, 14, IOC),  # expires
        replace(0, 3, 2, 1020, 30, 15, OrderType.LIMIT),  # in place
        replace(0, 4, 3, 1019, 30, 16, OrderType.LIMIT),  # elsewhere
        cancel(0, 2, 17),  # an old name: too late
        cancel(1, 1, 18),
        order(3, 1, BUY, 0, 10, 19, MARKET),
        order(3, 2, BUY, 990, 0, 20),  # refused
        command(CommandKind.MASS_CANCEL, 21, account=0, instrument=-1, side=2),
        command(CommandKind.CLOSE_SESSION, 22),
    )


def lobster_rows(recorded: Journal) -> list[tuple[int, ...]]:
    events = replay(recorded.config, recorded.commands).events
    messages = lobster.messages_of(recorded, events, 0, UNIT)
    fields = ("type", "order_id", "size", "price", "direction")
    return [tuple(int(row[name]) for name in fields) for row in messages]


def test_lobster_rows_are_what_happened_to_orders_that_could_be_seen():
    assert lobster_rows(story()) == [
        (1, 1, 50, 101_000, -1),
        (1, 2, 50, 102_000, -1),
        (4, 1, 50, 101_000, -1),
        (1, 3, 20, 101_500, 1),
        (4, 3, 5, 101_500, 1),
        (2, 2, 20, 102_000, -1),
        (3, 2, 30, 102_000, -1),
        (1, 6, 30, 101_900, -1),
        (3, 3, 15, 101_500, 1),
        (4, 6, 10, 101_900, -1),
        (3, 6, 20, 101_900, -1),
    ]


def test_lobster_of_an_auction_and_a_halt():
    config = EngineConfig(
        instruments=(InstrumentConfig(price_levels=4096, opening_auction_ns=10_000_000),), accounts=2, max_orders=16
    )
    commands = [
        command(CommandKind.DEPOSIT_CASH, 0, account=0, quantity_lots=10**9),
        command(CommandKind.DEPOSIT_POSITION, 0, account=1, quantity_lots=100),
        command(CommandKind.OPEN_SESSION, 1),
        order(0, 1, BUY, 1010, 30, 2),
        order(1, 1, SELL, 1000, 20, 3, IOC),
        command(CommandKind.TIMER, 11, instrument=0, account=-1),
        command(CommandKind.HALT, 12, instrument=0, account=-1),
    ]
    assert lobster_rows(Journal(config, records_of(commands))) == [
        (1, 1, 30, 101_000, 1),
        (1, 2, 20, 100_000, -1),
        (6, 1, 20, 101_000, 1),
        (6, 2, 20, 100_000, -1),
        (7, 0, 0, 1, -1),
        (7, 0, 0, -1, -1),
    ]


def test_lobster_files_are_read_again_and_give_the_engines_own_book(tmp_path: Path):
    for seed in range(12):
        config, commands = random_session(seed, money=seed % 2 == 1)
        recorded = Journal(config, commands)
        events = replay(config, commands).events
        message, book = lobster.write(recorded, events, 0, 0.01, tmp_path / f"seed{seed}")
        assert message.name.endswith("_message_10.csv") and book.name.endswith("_orderbook_10.csv")
        messages = lobster.messages_of(recorded, events, 0, UNIT)
        if not len(messages):
            continue
        tops = trace_tops(recorded)
        levels = config.instruments[0].price_levels
        books = lobster.books_of(messages, levels, UNIT)
        first_ns = int(commands["received_ns"][0])
        # After the last row of each command the best prices and their lots are the engine's.
        last = np.flatnonzero(np.append(np.diff(messages["time_ns"]) != 0, True))
        at = np.searchsorted(tops["time_ns"] - first_ns, messages["time_ns"][last], "right") - 1
        engine = tops[at]
        bid = np.where(engine["bid_ticks"] == NO_BID, -recordings.EMPTY_PRICE, engine["bid_ticks"] * UNIT)
        ask = np.where(engine["ask_ticks"] == levels, recordings.EMPTY_PRICE, engine["ask_ticks"] * UNIT)
        assert (books[last, 2] == bid).all() and (books[last, 3] == engine["bid_lots"]).all()
        assert (books[last, 0] == ask).all() and (books[last, 1] == engine["ask_lots"]).all()


def hft_rows(recorded: Journal, path: Path) -> list[dict[str, str]]:
    events = replay(recorded.config, recorded.commands).events
    answered = recorded.commands["received_ns"] + 40_000
    arguments = (0, "X", "20260102-030405", 0.01, path)
    count = hft_races.write(recorded, events, trace_tops(recorded), answered, *arguments)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count and list(rows[0]) == list(hft_races.COLUMNS)
    return rows


def test_the_log_of_race_studies_tells_every_message(tmp_path: Path):
    rows = hft_rows(story(), tmp_path / "log.csv")
    stamps = [row["MessageTimestamp"] for row in rows]
    assert stamps == sorted(stamps) and stamps[0] == "2026-01-02 03:04:05.010000000"
    assert stamps[1] == "2026-01-02 03:04:05.010040000"
    found = [
        tuple(row[name] for name in ("MessageType", "UserID", "ExecType", "UniqueOrderID", "LeavesQty")) for row in rows
    ]
    assert found[:4] == [
        ("New_Order", "0", "", "1", ""),
        ("Execution_Report", "0", "Order_Accepted", "1", "50"),
        ("New_Order", "0", "", "2", ""),
        ("Execution_Report", "0", "Order_Accepted", "2", "50"),
    ]
    kinds = [(row["MessageType"], row["ExecType"]) for row in rows]
    assert kinds.count(("Execution_Report", "Order_Executed")) == 2 * 3
    assert kinds.count(("Execution_Report", "Order_Expired")) == 1
    assert kinds.count(("Execution_Report", "Order_Replaced")) == 2
    assert kinds.count(("Execution_Report", "Order_Rejected")) == 1
    assert kinds.count(("Cancel_Replace_Request", "")) == 2 and kinds.count(("Other_Inbound", "")) == 1
    late = next(row for row in rows if row["MessageType"] == "Cancel_Reject")
    assert (late["CancelRejectReason"], late["OrigClientOrderID"], late["UniqueOrderID"]) == ("TLTC", "2", "2")
    trades = [row for row in rows if row["ExecType"] == "Order_Executed"]
    taker, maker = trades[0], trades[1]
    assert taker["TradeMatchID"] == maker["TradeMatchID"] and taker["TradeMatchID"] != trades[2]["TradeMatchID"]
    assert (taker["TradeInitiator"], taker["Side"], taker["OrderStatus"]) == ("Aggressive", "Bid", "Partial_Fill")
    assert (maker["TradeInitiator"], maker["Side"], maker["OrderStatus"]) == ("Passive", "Ask", "Full_Fill")
    assert (maker["ExecutedPrice"], maker["ExecutedQty"], maker["AuctionTrade"]) == ("10.1", "50", "False")
    # What a replaced order is called since belongs to the same order, and a cancel finds it.
    chain = [row for row in rows if row["UniqueOrderID"] == "2"]
    assert {row["ClientOrderID"] for row in chain if row["ExecType"]} == {"2", "3", "4"}
    first = next(row for row in rows if row["MessageType"] == "New_Order" and row["UserID"] == "1")
    assert (first["AskPrice"], first["AskSize"], first["BidPrice"]) == ("10.1", "50", "")


def test_lots_of_each_order_add_up_in_the_log(tmp_path: Path):
    matches = 0
    for seed in range(6):
        config, commands = random_session(seed)
        rows = hft_rows(Journal(config, commands), tmp_path / f"{seed}.csv")
        filled: dict[str, int] = {}
        for row in rows:
            if row["ExecType"] == "Order_Executed" and row["UniqueOrderID"]:
                filled[row["UniqueOrderID"]] = filled.get(row["UniqueOrderID"], 0) + int(row["ExecutedQty"])
                assert 0 <= int(row["LeavesQty"]) <= int(row["OrderQty"])
        by_match: dict[str, list[str]] = {}
        for row in rows:
            if row["TradeMatchID"]:
                by_match.setdefault(row["TradeMatchID"], []).append(row["ExecutedQty"])
        matches += len(by_match)
        assert all(len(both) == 2 and both[0] == both[1] for both in by_match.values())
        inbound = [row for row in rows if row["MessageType"] == "New_Order"]
        sizes = {row["UniqueOrderID"]: int(row["OrderQty"]) for row in inbound if row["UniqueOrderID"]}
        replaced = {row["UniqueOrderID"] for row in rows if row["ExecType"] == "Order_Replaced"}
        assert all(lots <= sizes[name] for name, lots in filled.items() if name not in replaced)
    assert matches > 50
