"""Market data of a real venue: numbered, the engine's book, repairable, and not slowed by a slow subscriber."""

import random

import pytest
import zmq

from exchange import clock, journal, wire
from exchange.config import InstrumentConfig
from exchange.engine import Engine
from exchange.loop import LoopConfig
from exchange.server import EndowmentConfig
from exchange.types import NO_BID, CommandKind, EventKind, OrderType, Side
from tests.test_metrics import scrape
from tests.venues import FAST, Connection, RunningVenue, check_replay, engine, hear, running_venue

BUY, SELL = Side.BUY, Side.SELL
RICH = EndowmentConfig(cash=10**12, lots=10**6)
INSTRUMENTS = (InstrumentConfig(price_levels=256), InstrumentConfig(price_levels=64))
pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def venue(tmp_path):
    settings = {"engine": engine(INSTRUMENTS, max_orders=4096), "endowment": RICH, "metrics_port": 0}
    loop = LoopConfig(market_data_interval_ns=clock.MS, slow_market_data_interval_ns=FAST.slow_market_data_interval_ns)
    with running_venue(tmp_path, loop=loop, open_at_start=True, **settings) as running:
        yield running


def trade_at_random(venue: RunningVenue, session: Connection, count: int, seed: int, first_id: int = 1) -> None:
    chance = random.Random(seed)
    for order_id in range(first_id, first_id + count):
        if chance.random() < 0.2:
            session.cancel(chance.randint(1, order_id), chance.randrange(2))
        else:
            session.place(order_id, chance.randrange(2), chance.randint(20, 40), chance.randint(1, 9), 0, order_id % 2)
        if order_id % 10 == 0:
            session.catch_up()
    session.catch_up()


def all_until_quiet(participant, venue) -> list:
    """What was published until a heartbeat that has the last sequence."""
    last = venue.status().sequence
    said = []
    while not any(message.kind == wire.MessageKind.HEARTBEAT and message.sequence >= last for message in said):
        assert participant.wait(10_000)
        said += participant.messages()
    tops = {}
    deadline = clock.monotonic_ns() + 10 * clock.SECOND
    while len(tops) < 2:  # market data comes over a connection of its own
        assert clock.monotonic_ns() < deadline
        participant.wait(1000)
        new = list(participant.messages())
        said += new
        tops.update(
            (one.instrument, one)
            for one in new
            if one.kind == wire.MessageKind.SLOW_TOP_OF_BOOK and one.sequence >= last
        )
    return said


def levels(state, number: int) -> tuple:
    """The best prices of a book, from the arrays themselves."""
    lots = state.levels["quantity_lots"][number]
    prices = [int(price) for price in lots.nonzero()[0]]
    if number % 2 == 0:
        prices.reverse()
    found = [(price, int(lots[price])) for price in prices[: wire.DEPTH_LEVELS]]
    return tuple(found + [(0, 0)] * (wire.DEPTH_LEVELS - len(found)))


def test_numbers_have_no_gap_and_what_is_said_is_the_engine_s_book_at_that_sequence(venue):
    reader, session = venue.participant(7), venue.session(0)
    trade_at_random(venue, session, 1500, seed=1)
    said = all_until_quiet(reader, venue)
    check_replay(venue, venue.stop())
    numbers: dict = {}
    for message in said:
        if isinstance(message, wire.TopOfBook | wire.Depth | wire.Trade):
            numbers.setdefault((message.kind, message.instrument), []).append(message.number)
    assert len(numbers) == 8
    for found in numbers.values():
        assert found == list(range(found[0], found[0] + len(found)))
    assert numbers[wire.MessageKind.TRADE, 0][0] == 1
    states = {message.sequence: [] for message in said if isinstance(message, wire.TopOfBook | wire.Depth)}
    for message in said:
        if isinstance(message, wire.TopOfBook | wire.Depth):
            states[message.sequence].append(message)
    config, commands = journal.read(venue.config.directory)
    again = Engine(config)
    at = 0
    traded = [0, 0]
    for sequence in sorted(states):
        events = again.apply(commands[at:sequence])
        at = sequence
        for event in events[events["kind"] == EventKind.ORDER_FILLED]:
            traded[event["instrument"]] += 1
        for message in states[sequence]:
            bids, asks = (levels(again.state, 2 * message.instrument + side) for side in (0, 1))
            row = again.state.instruments[message.instrument]
            if isinstance(message, wire.Depth):
                assert (message.bids, message.asks) == (bids, asks)
                assert message.trade_number == traded[message.instrument]
            else:
                assert (message.bid_ticks, message.bid_lots) == bids[0]
                empty = (int(row["price_levels"]), 0)
                assert (message.ask_ticks, message.ask_lots) == (empty if asks[0] == (0, 0) else asks[0])
                assert (message.last_ticks, message.volume_lots) == (row["last_ticks"], row["volume_lots"])
            assert message.phase == row["phase"]
    assert len(states) > 20


def test_depth_is_counted_within_one_percent_of_the_mid(tmp_path):
    with running_venue(tmp_path, endowment=RICH, open_at_start=True) as venue:
        listener, trader = venue.participant(1), venue.session(0)
        trader.place(1, BUY, 10000, 5)
        trader.place(2, BUY, 9950, 3)  # within 1 % of the mid
        trader.place(3, BUY, 9000, 2)  # not
        trader.place(4, SELL, 10010, 8)
        for _ in range(200):
            top = hear(listener, wire.MessageKind.SLOW_TOP_OF_BOOK)
            if top.instrument == 0 and top.ask_lots:
                break
        assert (top.bid_ticks, top.bid_lots, top.ask_ticks, top.ask_lots) == (10000, 5, 10010, 8)
        assert (top.bid_depth_lots, top.ask_depth_lots) == (8, 8)


def test_every_match_is_a_trade_and_trades_can_be_asked_for_again(venue):
    reader, session = venue.participant(7), venue.session(0)
    trade_at_random(venue, session, 1500, seed=2)
    said = all_until_quiet(reader, venue)
    trades = [
        [message for message in said if message.kind == wire.MessageKind.TRADE and message.instrument == number]
        for number in (0, 1)
    ]
    assert all(len(found) > 50 for found in trades)
    for number in (0, 1):
        for first in (1, len(trades[number]) - 3, len(trades[number]) + 1):
            session.send(wire.MessageKind.TRADES_REQUEST, number, first)
            answered = session.catch_up()
            assert answered == trades[number][first - 1 :][: wire.MAX_TRADES_RESENT]
    replayed = check_replay(venue, venue.stop())
    fills = replayed.events[replayed.events["kind"] == EventKind.ORDER_FILLED]
    for number in (0, 1):
        mine = fills[fills["instrument"] == number]
        fields = ("sequence", "time_ns", "price_ticks", "quantity_lots", "side")
        assert [tuple(trade[3:]) for trade in trades[number]] == [tuple(map(int, fill[list(fields)])) for fill in mine]


def test_more_trades_than_one_answer_holds_are_had_by_asking_on_and_survive_a_restart(venue):
    session = venue.session(0)
    count = 600
    for order_id in range(1, 2 * count, 2):
        session.place(order_id, BUY, 30, 1)
        session.place(order_id + 1, SELL, 30, 1)
    session.catch_up()
    kept = []
    for restarted in (False, True):
        if restarted:
            venue.kill()
            venue.start()
            session = venue.session(1)
        trades: list = []
        while True:
            session.send(wire.MessageKind.TRADES_REQUEST, 0, len(trades) + 1)
            answered = session.catch_up()
            assert len(answered) <= wire.MAX_TRADES_RESENT
            if not answered:
                break
            trades += answered
        assert [trade.number for trade in trades] == list(range(1, count + 1))
        kept.append(trades)
    assert kept[0] == kept[1]


def test_a_subscriber_who_never_reads_loses_its_own_market_data_and_nothing_else(venue):
    """Its queue fills; trades that did not fit are counted; who reads gets every one, and notices reach all."""
    deaf = venue.context.socket(zmq.SUB)
    deaf.setsockopt(zmq.RCVHWM, 1)
    deaf.setsockopt(zmq.RCVBUF, 4096)
    deaf.setsockopt(zmq.SUBSCRIBE, b"")
    deaf.connect(venue.endpoints.market_data)
    deaf_notices = venue.context.socket(zmq.SUB)
    deaf_notices.setsockopt(zmq.RCVHWM, 1)
    deaf_notices.setsockopt(zmq.RCVBUF, 4096)
    deaf_notices.setsockopt(zmq.SUBSCRIBE, b"")
    deaf_notices.connect(venue.endpoints.notices)
    assert deaf.poll(10_000) and deaf_notices.poll(10_000)  # they are connected
    reader, session = venue.participant(7), venue.session(0)
    trades, order_id, signals = [], 0, 0
    turn = 0
    while scrape(venue)["aar_market_data_conflated_total", ()] == 0:
        assert turn < 1500, "its queue does not fill"
        for _ in range(500):
            order_id += 2
            session.place(order_id - 1, BUY, 30, 1)
            session.place(order_id, SELL, 30, 1, OrderType.LIMIT)
        session.catch_up()
        session.heard.clear()
        reader.wait(0)
        trades += [message.number for message in reader.messages() if message.kind == wire.MessageKind.TRADE]
        if turn % 20 == 0:
            assert venue.operator.request(CommandKind.PUBLISH_SIGNAL, 0, 0, turn).reason == 0
            signals += 1
        turn += 1
    deadline = clock.monotonic_ns() + 20 * clock.SECOND
    while len(trades) < order_id // 2 and clock.monotonic_ns() < deadline:
        reader.wait(100)
        trades += [message.number for message in reader.messages() if message.kind == wire.MessageKind.TRADE]
    assert trades == list(range(1, order_id // 2 + 1))
    heard = []
    while len(heard) < signals:
        assert deaf_notices.poll(10_000), "a notice is lost"
        message = wire.unpack(deaf_notices.recv())
        if message.kind == EventKind.SIGNAL_PUBLISHED:
            heard.append(message.value)
    assert heard == list(range(0, 20 * signals, 20))
    deaf.close()
    deaf_notices.close()
    said = venue.stop()
    assert said["market_data_conflated"] > 0
    assert said["reports_unsent"] == 0
    check_replay(venue, said)


def test_a_new_venue_s_book_is_empty_and_says_so(venue):
    session = venue.session(0)
    session.send(wire.MessageKind.DEPTH_REQUEST, 1)
    depth = session.hear(wire.MessageKind.DEPTH)
    assert depth.instrument == 1 and depth.trade_number == 0
    assert depth.bids == depth.asks == ((0, 0),) * wire.DEPTH_LEVELS
    listener = venue.participant(1)
    top = hear(listener, wire.MessageKind.SLOW_TOP_OF_BOOK)
    assert top.bid_ticks == NO_BID and top.ask_ticks == INSTRUMENTS[top.instrument].price_levels
