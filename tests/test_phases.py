"""Auctions, halts and batches over real sockets, and the venue's timers by its journal."""

import pytest
import zmq

from exchange import clock, journal, wire
from exchange.config import BreakerConfig, InstrumentConfig
from exchange.engine import Engine
from exchange.server import EndowmentConfig
from exchange.types import NEVER, CommandKind, EventKind, OrderType, Phase, Reason, Side
from tests.venues import check_replay, engine, hear, running_venue

BUY, SELL = Side.BUY, Side.SELL
RICH = EndowmentConfig(cash=10**12, lots=10**6)
pytestmark = pytest.mark.usefixtures("nothing_left")


def check_timers(venue):
    """No command that was received at or after a timer came before the TIMER. Returns how many timers there were."""
    config, commands = journal.read(venue.config.directory)
    engine_again = Engine(config)
    counters = engine_again.state.counters
    for at, command in enumerate(commands):
        due = int(counters["next_timer_ns"][0])
        if command["kind"] == CommandKind.TIMER:
            assert command["received_ns"] >= due, command
            assert engine_again.state.instruments["timer_ns"][command["instrument"]] <= command["received_ns"]
        else:
            assert command["received_ns"] < due, command
        engine_again.apply(commands[at : at + 1])
    return int((commands["kind"] == CommandKind.TIMER).sum())


def test_the_opening_auction_says_what_it_would_clear_at_and_clears_there(tmp_path):
    instruments = (InstrumentConfig(price_levels=256, opening_auction_ns=clock.SECOND),)
    with running_venue(tmp_path, engine=engine(instruments), endowment=RICH) as venue:
        buyer, seller = venue.participant(0), venue.participant(1)
        seller.place(1, 0, SELL, OrderType.LIMIT, 100, 1, 0, 0)
        assert hear(seller, EventKind.ORDER_REJECTED).reason == Reason.NOT_OPEN
        venue.open()
        changed = hear(buyer, EventKind.PHASE_CHANGED)
        assert (changed.instrument, changed.value) == (0, Phase.AUCTION)
        assert changed.threshold == changed.time_ns + clock.SECOND
        buyer.place(1, 0, BUY, OrderType.LIMIT, 104, 10, 0, 0)
        assert hear(buyer, EventKind.ORDER_ACCEPTED).leaves_lots == 10
        seller.place(2, 0, SELL, OrderType.LIMIT, 100, 6, 0, 0)
        seller.place(3, 0, SELL, OrderType.MARKET, 0, 6, 0, 0)
        assert hear(seller, EventKind.ORDER_REJECTED).reason == Reason.NOT_IN_AUCTION
        while not (indication := hear(buyer, wire.MessageKind.INDICATIVE)).price_ticks:
            pass
        assert (indication.volume_lots, indication.imbalance_lots) == (6, 4)
        assert 100 <= indication.price_ticks <= 104
        assert indication.until_ns == changed.threshold
        fill = hear(seller, EventKind.ORDER_FILLED)
        assert (fill.price_ticks, fill.quantity_lots, fill.liquidity, fill.reason) == (
            indication.price_ticks,
            6,
            3,
            Reason.AUCTION,
        )
        assert fill.time_ns >= changed.threshold
        with venue.context.socket(zmq.SUB):
            pass
        buyer.place(2, 0, BUY, OrderType.MARKET, 0, 1, 0, 0)
        assert hear(buyer, EventKind.ORDER_CANCELLED).reason == Reason.NO_LIQUIDITY  # continuous now
        replayed = check_replay(venue, venue.stop())
        ended = replayed.events[replayed.events["kind"] == EventKind.AUCTION_ENDED]
        assert ended["price_ticks"].tolist() == [indication.price_ticks]
        assert check_timers(venue) == 1


def test_the_end_of_an_auction_is_told_with_the_market_data_and_its_fills_are_trades(tmp_path):
    instruments = (InstrumentConfig(price_levels=256, opening_auction_ns=300 * clock.MS),)
    with running_venue(tmp_path, engine=engine(instruments), endowment=RICH) as venue:
        listener, trader = venue.participant(0), venue.session(1)
        venue.open()
        trader.place(1, BUY, 50, 7)
        trader.place(2, SELL, 50, 5)
        ended = hear(listener, EventKind.AUCTION_ENDED)
        assert (ended.instrument, ended.price_ticks, ended.quantity_lots, ended.value) == (0, 50, 5, 2)
        trade = hear(listener, wire.MessageKind.TRADE)
        assert (trade.number, trade.price_ticks, trade.quantity_lots, trade.taker_side) == (1, 50, 5, 2)


def test_a_halt_ends_in_a_reopening_auction_and_that_in_continuous_trading(tmp_path):
    breaker = BreakerConfig(
        price_move_bps=500,
        price_window_ns=10 * clock.SECOND,
        halt_ns=200 * clock.MS,
        reopening_auction_ns=300 * clock.MS,
        cancels_while_halted=True,
    )
    instruments = (InstrumentConfig(price_levels=2048, breaker=breaker),)
    with running_venue(tmp_path, engine=engine(instruments), endowment=RICH, open_at_start=True) as venue:
        listener, maker, taker = venue.participant(0), venue.session(1), venue.session(2)
        for order_id, price in enumerate((1000, 900), 1):
            maker.place(order_id, BUY, price, 10)
            maker.hear(EventKind.ORDER_ACCEPTED)
        taker.place(1, SELL, 0, 20, OrderType.MARKET)
        assert taker.hear(EventKind.ORDER_CANCELLED).reason == Reason.BREAKER
        halted = hear(listener, EventKind.INSTRUMENT_HALTED)
        phases = [hear(listener, EventKind.PHASE_CHANGED)]
        assert phases[0].threshold == halted.time_ns + 200 * clock.MS
        phases.append(hear(listener, EventKind.PHASE_CHANGED))
        assert phases[1].time_ns >= phases[0].threshold
        taker.place(2, SELL, 890, 4)
        assert taker.hear(EventKind.ORDER_ACCEPTED).leaves_lots == 4
        fill = taker.hear(EventKind.ORDER_FILLED)
        assert (fill.price_ticks, fill.quantity_lots, fill.liquidity) == (900, 4, 3)
        phases.append(hear(listener, EventKind.PHASE_CHANGED))
        assert [phase.value for phase in phases] == [Phase.HALTED, Phase.AUCTION, Phase.CONTINUOUS]
        taker.place(3, SELL, 900, 1)
        assert taker.hear(EventKind.ORDER_FILLED).liquidity == 1
        check_replay(venue, venue.stop())
        assert check_timers(venue) == 2


@pytest.mark.parametrize("kind", ["halts of 1 ms", "batches of 1 ms"])
def test_no_command_overtakes_a_timer_however_many_wait(tmp_path, kind):
    breaker = BreakerConfig(
        price_move_bps=100, price_window_ns=clock.SECOND, halt_ns=clock.MS, reopening_auction_ns=clock.MS
    )
    if kind == "halts of 1 ms":
        instruments = (InstrumentConfig(price_levels=1024, breaker=breaker),)
    else:
        instruments = (
            InstrumentConfig(price_levels=1024, batch_interval_ns=clock.MS),
            InstrumentConfig(price_levels=1024, batch_interval_ns=3 * clock.MS),
        )
    settings = {"engine": engine(instruments, max_orders=1 << 14), "endowment": RICH, "open_at_start": True}
    with running_venue(tmp_path, **settings) as venue:
        sessions = [venue.session(account) for account in (0, 1)]
        rounds, each = 20, 200
        order_id = 0
        for _ in range(rounds):
            for _ in range(each):
                order_id += 1
                for number, session in enumerate(sessions):
                    price = 500 + (order_id * 37) % 15 * 4
                    session.place(order_id, number, price, 2, instrument=order_id % len(instruments))
            for session in sessions:
                session.catch_up()
        replayed = check_replay(venue, venue.stop())
        timers = check_timers(venue)
        assert timers >= rounds
        fills = replayed.events[replayed.events["kind"] == EventKind.ORDER_FILLED]
        assert len(fills) > 0
        if kind == "batches of 1 ms":
            assert (fills["reason"] == Reason.AUCTION).all()
            waited = replayed.engine.state.instruments["timer_ns"] != NEVER
            assert waited.sum() <= len(instruments)
        else:
            assert (replayed.events["kind"] == EventKind.INSTRUMENT_HALTED).sum() > 1


def test_what_a_batch_collects_is_nobody_s_to_see_before_it_is_matched(tmp_path):
    instruments = (InstrumentConfig(price_levels=1024, batch_interval_ns=400 * clock.MS),)
    with running_venue(tmp_path, engine=engine(instruments), endowment=RICH, open_at_start=True) as venue:
        listener, trader = venue.participant(0), venue.session(1)
        sequences = []
        for order_id in range(1, 6):
            trader.place(2 * order_id - 1, BUY, 100 + order_id, 3)
            trader.place(2 * order_id, SELL, 100, 1)
            trader.hear(EventKind.ORDER_ACCEPTED)
            trader.send(wire.MessageKind.DEPTH_REQUEST, 0)
            sequences.append(trader.hear(wire.MessageKind.DEPTH))
            trader.hear(EventKind.ORDER_FILLED)
        said = []
        for _ in range(200):  # all that was published, until a heartbeat behind the last batch
            listener.wait(1000)
            said += listener.messages()
            if any(message.kind == wire.MessageKind.HEARTBEAT and message.sequence >= 11 for message in said):
                break
        venue.stop()
    config, commands = journal.read(venue.config.directory)
    sealed = set()  # sequences after which the book was sealed
    books = {}
    again = Engine(config)
    for at in range(len(commands)):
        again.apply(commands[at : at + 1])
        row = again.state.instruments[0]
        if row["phase"] == Phase.BATCH and row["timer_ns"] != NEVER:
            sealed.add(int(commands["sequence"][at]))
        books[int(commands["sequence"][at])] = int(again.state.best[0])
    tops = [message for message in said if message.kind == wire.MessageKind.TOP_OF_BOOK]
    depths = [message for message in said if message.kind == wire.MessageKind.DEPTH]
    assert tops and depths and sealed
    for message in [*tops, *depths]:
        assert message.sequence not in sealed, message
    for top in tops:
        assert top.bid_ticks == books[top.sequence]
    for depth in sequences:  # asked for while the book was sealed
        published = [one for one in depths if one.number == depth.number]
        if depth.sequence in sealed and published:
            assert depth.bids == published[0].bids
        assert depth.bids[0][0] == 0 or depth.bids[0][0] in {one.bids[0][0] for one in depths}, depth
