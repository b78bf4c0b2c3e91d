"""Clients that keep a session: nothing is lost or doubled, whatever the connection and the venue do."""

import asyncio

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange import clock, wire
from exchange.client import Endpoints, Operator, Participant
from exchange.errors import VenueError
from exchange.keys import ClientKeys, generate
from exchange.market_data import MarketData
from exchange.session import AsyncSession, Session, SessionRefused
from exchange.session_state import OrderStatus, Phase, SessionState
from exchange.types import BOTH_SIDES, EventKind, OrderType, Reason, SelfTrade, Side
from tests.fake_venue import REMEMBERED_ORDERS, Core, fake_venue

BUY, SELL, LIMIT = Side.BUY, Side.SELL, OrderType.LIMIT
SECOND = clock.SECOND


class Wired:
    """A SessionState and a Core with messages on their way between them. Connections are numbered."""

    def __init__(self, core: Core, state: SessionState | None = None) -> None:
        self.core = core
        self.state = state or SessionState(3)
        self.number = 0
        self.to_venue: list[bytes] = []
        self.to_client: list[bytes] = []
        self.heard: list[object] = []
        self.now = 0

    @property
    def connection(self) -> bytes:
        return b"%d" % self.number

    def connect(self) -> None:
        self.number += 1
        self.now = max(self.now, self.state.retry_ns)
        self.to_venue += self.state.on_connect(self.now)

    def lose(self) -> None:
        """The connection ends, with all that was on its way."""
        self.core.disconnect(self.connection)
        self.to_venue.clear()
        self.to_client.clear()
        self.state.on_disconnect(self.now)

    def venue_turn(self) -> None:
        self.to_client += self.core.take(self.connection, self.to_venue.pop(0))

    def client_turn(self) -> None:
        actions = self.state.on_message(wire.unpack(self.to_client.pop(0)), self.now)
        if actions.deliver is not None:
            self.heard.append(actions.deliver)
        if actions.reconnect:
            self.core.disconnect(self.connection)
            self.to_venue.clear()
            self.to_client.clear()
        self.to_venue += actions.send

    def settle(self) -> None:
        """Until nothing is on its way and the session stands."""
        for _ in range(1000):
            if self.to_venue:
                self.venue_turn()
            elif self.to_client:
                self.client_turn()
            elif self.state.phase is Phase.OFFLINE:
                self.connect()
            elif (due := self.state.due_ns()) is not None:
                self.now = due
                self.to_venue += self.state.on_timer(due)
            else:
                return
        raise AssertionError("it does not settle")

    def place(self, lots: int = 10, price: int = 100) -> int:
        order_id, frames = self.state.place(0, BUY, price, lots, LIMIT, 0, 0, 0, 0)
        self.to_venue += frames
        return order_id

    def replace(self, target: int, lots: int, price: int = 100) -> int:
        order_id, frames = self.state.replace(target, price, lots, LIMIT, 0, 0, 0, 0)
        self.to_venue += frames
        return order_id

    def cancel(self, order_id: int, lots: int = 0) -> None:
        self.to_venue += self.state.cancel(order_id, lots, 0, 0, 0, 0)

    def mass_cancel(self) -> None:
        self.to_venue += self.state.mass_cancel(-1, BOTH_SIDES, 0, 0, 0, 0)

    def fill(self, order_id: int, lots: int) -> None:
        self.core.out = []
        self.core.fill(3, order_id, lots)
        self.to_client += [frame for to, frame in self.core.out if to == self.connection]

    def reports(self) -> list[object]:
        return [message for message in self.heard if isinstance(message, wire.Report)]


@pytest.fixture
def wired():
    made = Wired(Core())
    made.settle()
    return made


def test_ids_go_on_above_what_the_venue_has_counted():
    core = Core()
    core.counted[3] = 41
    wired = Wired(core)
    with pytest.raises(VenueError, match="no session yet"):
        wired.place()
    wired.settle()
    assert wired.place() == 42


def test_an_order_that_never_arrived_is_sent_again_and_one_that_counted_is_not(wired):
    first, second = wired.place(), wired.place()
    wired.venue_turn()  # the first counts; its answer and the second are lost
    wired.lose()
    wired.settle()
    assert [command[1:3] for command in wired.core.commands] == [(1, first), (1, second)]
    assert [order.status for order in wired.state.open_orders()] == [OrderStatus.OPEN] * 2
    assert wired.reports() == wired.core.reports[3]


def test_an_order_given_while_there_is_no_session_is_sent_when_there_is_one(wired):
    wired.lose()
    order_id = wired.place()
    assert not wired.to_venue and wired.state.order(order_id).status is OrderStatus.SENT
    wired.settle()
    assert wired.state.order(order_id).status is OrderStatus.OPEN


def test_a_partial_cancel_whose_answer_was_lost_does_not_take_twice(wired):
    order_id = wired.place(10)
    wired.settle()
    wired.cancel(order_id, 3)
    wired.venue_turn()
    wired.lose()
    wired.settle()
    assert wired.core.resting[3, order_id][2] == wired.state.order(order_id).leaves_lots == 7
    wired.cancel(order_id, 3)
    wired.lose()  # this one never arrived
    wired.settle()
    assert wired.core.resting[3, order_id][2] == 4


def test_a_mass_cancel_whose_answer_was_lost_does_not_take_later_orders(wired):
    early = wired.place()
    wired.mass_cancel()
    late = wired.place()
    while wired.to_venue:
        wired.venue_turn()
    wired.lose()
    wired.settle()
    assert list(wired.core.resting) == [(3, late)]
    assert wired.state.order(early).reason == Reason.MASS_CANCEL


def test_fills_while_away_are_heard_once_each_also_within_one_command(wired):
    order_id = wired.place(10)
    wired.settle()
    sequence = wired.core.sequence
    for lots in (1, 2, 3):  # one command of another participant: one sequence, three reports
        wired.core.sequence = sequence
        wired.fill(order_id, lots)
    wired.client_turn()
    wired.lose()
    wired.settle()
    assert wired.state.order(order_id).filled_lots == 6
    assert wired.reports() == wired.core.reports[3] and wired.state.duplicates == 0


def test_reports_that_come_twice_are_dropped(wired):
    order_id = wired.place(10)
    wired.venue_turn()
    wired.fill(order_id, 4)
    wired.to_venue += wired.state.on_connect(0)  # a second logon before its first reports were heard
    wired.to_client, held = [], wired.to_client
    for frame in held:
        wired.state.phase = Phase.READY
        wired.state.on_message(wire.unpack(frame), 0)
    wired.settle()
    assert wired.state.duplicates == 2
    assert wired.state.order(order_id).filled_lots == 4


def test_a_restart_in_the_middle_is_noticed_by_the_refusal(wired):
    kept = wired.place()
    wired.settle()
    wired.core.restart()
    lost = wired.place()
    wired.settle()
    assert wired.state.logons == 2 and wired.state.logged_on.starts == 2
    assert [order.order_id for order in wired.state.open_orders()] == [kept, lost]
    assert all(order.status is OrderStatus.OPEN for order in wired.state.open_orders())


@pytest.mark.parametrize("kind", [wire.MessageKind.HEARTBEAT, EventKind.VENUE_STARTED])
def test_a_restart_is_noticed_by_the_count_of_starts(wired, kind):
    same, more = (wire.Notice(int(kind), 9, 0, -1, 0, starts, 0, 0, 0, 0, 0, 0) for starts in (1, 2))
    assert not wired.state.on_public(same, 0).reconnect
    actions = wired.state.on_public(more, 0)
    assert actions.reconnect and wired.state.phase is Phase.OFFLINE
    assert (actions.deliver is None) == (kind == wire.MessageKind.HEARTBEAT)


def test_after_lost_reports_orders_are_asked_for(wired):
    open_id, filled_id, cancelled_id = wired.place(10), wired.place(10), wired.place(10)
    wired.settle()
    wired.cancel(open_id, 1)
    wired.mass_cancel()
    wired.to_venue.clear()
    wired.lose()
    wired.core.fill(3, open_id, 4)
    wired.core.fill(3, filled_id, 10)
    del wired.core.resting[3, cancelled_id]
    wired.core.kept = 0
    wired.settle()
    assert wired.state.reports_lost
    still = wired.state.order(open_id)
    assert (still.status, still.leaves_lots, still.certain) == (OrderStatus.OPEN, 6, False)  # nothing was taken twice
    assert wired.state.order(filled_id).status is wired.state.order(cancelled_id).status is OrderStatus.GONE
    assert wired.core.resting == {(3, open_id): [BUY, 100, 6, 4]}


def test_after_lost_reports_an_order_of_long_ago_may_or_may_not_rest(wired):
    ids = [wired.place() for _ in range(REMEMBERED_ORDERS + 1)]
    wired.settle()
    wired.lose()
    wired.core.fill(3, ids[0], 1)
    wired.core.kept = 0
    wired.settle()
    assert wired.state.order(ids[0]).status is OrderStatus.UNKNOWN
    assert {wired.state.order(each).status for each in ids[1:]} == {OrderStatus.OPEN}
    wired.cancel(ids[0])
    wired.settle()
    assert wired.state.order(ids[0]).status is OrderStatus.CANCELLED


def test_a_question_that_came_too_fast_is_asked_again(wired):
    order_id = wired.place()
    wired.settle()
    wired.lose()
    wired.core.fill(3, order_id, 10)
    wired.core.kept = 0
    wired.connect()
    while wired.state.phase is not Phase.READY:
        wired.venue_turn() if wired.to_venue else wired.client_turn()
    wired.core.refuse_next = [Reason.TOO_FAST]
    wired.settle()
    assert wired.state.order(order_id).status is OrderStatus.GONE


def test_an_order_that_came_too_fast_is_rejected_and_not_sent_again(wired):
    wired.core.refuse_next = [Reason.TOO_FAST]
    order_id = wired.place()
    wired.settle()
    wired.lose()
    wired.settle()
    assert (wired.state.order(order_id).status, wired.state.order(order_id).reason) == (
        OrderStatus.REJECTED,
        Reason.TOO_FAST,
    )
    assert wired.core.commands == []


def test_a_refused_cancel_is_told_and_not_sent_behind_the_users_back(wired):
    order_id = wired.place()
    wired.settle()
    wired.core.refuse_next = [Reason.TOO_FAST]
    wired.cancel(order_id)
    wired.settle()
    assert wired.heard[-1].reason == Reason.TOO_FAST
    wired.lose()
    wired.settle()
    assert (3, order_id) in wired.core.resting


def test_replacing_renames(wired):
    first = wired.place(10)
    wired.settle()
    wired.fill(first, 4)
    second = wired.replace(first, 8)
    wired.settle()
    old, new = wired.state.order(first), wired.state.order(second)
    assert (old.status, old.replaced_by) == (OrderStatus.REPLACED, second)
    assert (new.status, new.leaves_lots, new.filled_lots, new.replaces) == (OrderStatus.OPEN, 4, 4, first)
    third = wired.replace(second, 4)  # all of it is filled already: it only cancels
    wired.settle()
    assert wired.state.order(second).reason == wired.state.order(third).reason == Reason.REPLACED
    assert wired.state.open_orders() == []
    fourth = wired.replace(second, 5)
    wired.settle()
    assert (wired.state.order(fourth).status, wired.state.order(fourth).reason) == (
        OrderStatus.REJECTED,
        Reason.UNKNOWN_ORDER,
    )


def test_a_later_client_takes_over_what_an_earlier_one_placed(wired):
    order_id = wired.place(10)
    wired.settle()
    wired.fill(order_id, 3)
    wired.lose()
    later = Wired(wired.core, SessionState(3, heard=(1, 0)))
    later.number = 100
    later.settle()
    (order,) = later.state.open_orders()
    assert (order.order_id, order.leaves_lots, order.filled_lots, order.certain) == (order_id, 7, 3, True)
    assert later.place() == order_id + 1


def test_another_venue_is_not_taken_for_the_same(wired):
    wired.place()
    wired.settle()
    wired.lose()
    wired.core = Core()
    with pytest.raises(VenueError, match="not the same venue"):
        wired.settle()


@pytest.mark.parametrize("reason", [Reason.WRONG_KEY, Reason.UNKNOWN_ACCOUNT, Reason.UNKNOWN_VERSION])
def test_a_refusal_that_time_does_not_cure_is_an_error(reason):
    wired = Wired(Core())
    wired.core.refuse_next = [reason]
    with pytest.raises(SessionRefused) as refused:
        wired.settle()
    assert refused.value.reason == reason


def test_a_session_in_use_is_tried_again_later(wired):
    wired.state.on_disconnect(0)  # the venue has not noticed yet
    wired.connect()
    wired.venue_turn()
    wired.client_turn()
    assert wired.state.phase is Phase.OFFLINE and wired.state.retry_ns == SECOND // 2
    assert wired.state.refusal == Reason.SESSION_IN_USE


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.integers(1, 20)),
        st.tuples(st.just("reject"), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("replace"), st.integers(0, 9)),
        st.tuples(st.just("mass"), st.just(0)),
        st.tuples(st.just("fill"), st.integers(0, 9)),
        st.tuples(st.just("venue"), st.just(0)),
        st.tuples(st.just("client"), st.just(0)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("connect"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(STEPS)
def test_whatever_is_lost_on_the_way_counts_once_and_is_heard_once(steps):
    wired = Wired(Core())
    wired.settle()
    meant = 0
    for step, number in steps:
        ours = sorted(wired.state.orders)
        if step == "place":
            wired.place(number)
            meant += 1
        elif step == "reject":
            wired.place(5, price=0)
            meant += 1
        elif step == "mass":
            wired.mass_cancel()
            meant += 1
        elif step == "cancel" and ours:
            wired.cancel(ours[number % len(ours)], number % 4)
            meant += 1
        elif step == "replace" and ours:
            wired.replace(ours[number % len(ours)], number + 1, 100 + number % 2)
            meant += 1
        elif step == "fill" and wired.core.resting:
            wired.fill(list(wired.core.resting)[number % len(wired.core.resting)][1], 1 + number)
        elif step == "venue" and wired.to_venue:
            wired.venue_turn()
        elif step == "client" and wired.to_client:
            wired.client_turn()
        elif step == "lose":
            wired.lose()
        elif step == "restart":
            wired.core.restart()
        elif step == "connect" and wired.state.phase is Phase.OFFLINE:
            wired.connect()
    wired.settle()
    assert wired.reports() == wired.core.reports.get(3, [])
    assert all(order.answered and order.certain for order in wired.state.orders.values())
    assert {order.order_id: order.leaves_lots for order in wired.state.open_orders()} == {
        order_id: row[2] for (_, order_id), row in wired.core.resting.items()
    }
    for order in wired.state.open_orders():
        assert order.filled_lots == wired.core.resting[3, order.order_id][3]
    # each order, and each cancel that takes twice if sent twice, counted once; whole cancels may be repeated
    counted = [command for command in wired.core.commands if command[1] != 2 or command[4]]
    assert len(counted) <= meant
    assert len({command[2] for command in counted if command[1] in (1, 4)}) == sum(
        command[1] in (1, 4) for command in counted
    )


# ── market data ──────────────────────────────────────────────────────────────────────────────────────────────────────


def trade(number, sequence=None, instrument=0):
    return wire.Trade(int(wire.MessageKind.TRADE), instrument, number, sequence or 100 + number, 0, 50, 1, 0)


def depth(trade_number, sequence=1000):
    return wire.Depth(int(wire.MessageKind.DEPTH), 0, 1, sequence, 0, 1, trade_number, (), ())


def numbers(trades):
    return [each.number for each in trades]


def test_a_gap_in_the_trades_is_asked_for_and_filled_in_order():
    market = MarketData()
    assert numbers(market.take_trade(trade(5))) == [5] and market.requests(0) == []
    assert market.take_trade(trade(8)) == [] == market.take_trade(trade(9))
    assert market.requests(0) == [(0, 6)] and market.requests(1) == []
    assert numbers(market.take_trade(trade(6), requested=True)) == [6]
    assert numbers(market.take_trade(trade(7), requested=True)) == [7, 8, 9]
    assert market.take_trade(trade(8), requested=True) == []
    assert numbers(market.take_trade(trade(10))) == [10]
    assert (market.gaps, market.repaired, market.lost, market.due_ns()) == (1, 2, 0, None)


def test_the_last_trades_are_missed_by_the_depth_that_counts_them():
    market = MarketData()
    market.take_state(depth(3))
    assert market.requests(0) == []  # nobody listens to trades
    market.take_trade(trade(3))
    market.take_state(depth(3))
    market.take_state(depth(9), published=False)  # an answer may overtake trades
    assert market.requests(0) == []
    market.take_state(depth(4))
    assert market.requests(0) == [(0, 4)]


def test_what_the_venue_has_forgotten_is_counted_as_lost():
    market = MarketData()
    market.take_trade(trade(1))
    market.take_trade(trade(10))
    assert market.requests(0) == [(0, 2)]
    assert numbers(market.take_trade(trade(9), requested=True)) == [9, 10]
    assert (market.gaps, market.repaired, market.lost) == (1, 1, 7)


def test_a_long_gap_takes_several_answers():
    market = MarketData()
    market.take_trade(trade(1))
    market.take_trade(trade(600))
    now = asked = 0
    while market.due_ns() is not None:
        for _, first in market.requests(now):
            asked += 1
            for number in range(first, min(first + wire.MAX_TRADES_RESENT, 601)):
                market.take_trade(trade(number), requested=True)
    assert (asked, market.repaired, market.lost) == (3, 598, 0)


def test_a_gap_that_nobody_fills_is_given_up():
    market = MarketData()
    market.take_trade(trade(1))
    market.take_trade(trade(4))
    now = 0
    while market.due_ns() is not None:
        now = market.due_ns()
        market.requests(now)
        found = market.abandon(now)
    assert numbers(found) == [4] and market.lost == 2
    assert numbers(market.take_trade(trade(5))) == [5]


def test_a_venue_that_counts_anew_is_followed():
    market = MarketData()
    market.take_trade(trade(7))
    assert market.take_trade(trade(7)) == []
    assert numbers(market.take_trade(trade(1, sequence=900))) == [1]
    assert numbers(market.take_trade(trade(2, sequence=900))) == [2]


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 2**32))
def test_every_trade_is_delivered_once_in_order(drops, _):
    market = MarketData()
    got = market.take_trade(trade(1))
    total = len(drops) + 2
    for number, dropped in enumerate(drops, 2):
        if not dropped:
            got += market.take_trade(trade(number))
    got += market.take_trade(trade(total))
    for _, first in market.requests(0):
        for number in range(first, total + 1):
            got += market.take_trade(trade(number), requested=True)
    assert numbers(got) == list(range(1, total + 1))


# ── over sockets, with a fake venue ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def venue():
    with fake_venue() as running:
        yield running


def test_a_session_places_cancels_and_hears(venue):
    with Session(venue.endpoints, 3, self_trade=SelfTrade.CANCEL_RESTING) as session:
        assert session.state.logged_on.flags == 2
        order_id = session.place(0, BUY, 100, 10)
        assert session.wait_for(order_id).status is OrderStatus.OPEN
        venue.fill(3, order_id, 4)
        session.wait_until(lambda: session.order(order_id).filled_lots or None)
        session.cancel(order_id)
        assert session.wait_for(order_id, ended=True).reason == Reason.BY_OWNER
        kinds = [message.kind for message in session.messages()]
        assert kinds == [
            wire.MessageKind.LOGGED_ON,
            EventKind.ORDER_ACCEPTED,
            EventKind.ORDER_FILLED,
            EventKind.ORDER_CANCELLED,
        ]
        with pytest.raises(VenueError, match="no order 99"):
            session.wait_for(99)
        session.log_off()


def test_a_session_survives_the_restart_of_the_venue_on_the_same_port(venue):
    with Session(venue.endpoints, 3) as session:
        before = session.place(0, BUY, 100, 10)
        session.wait_for(before)
        venue.do(lambda: setattr(venue, "deaf", True))
        unheard = session.place(0, BUY, 101, 10)
        session.poll()
        venue.do(lambda: None)
        while venue.do(lambda: venue.core.counted[3]) < unheard:
            session.poll(0.01)
        venue.restart()
        after = session.place(0, BUY, 102, 10)
        for order_id in (unheard, after):
            assert session.wait_for(order_id).status is OrderStatus.OPEN
        assert session.state.logons == 2 and not session.state.reports_lost
        assert [command[2] for command in venue.core.commands if command[1] == 1] == [before, unheard, after]


def test_an_idle_session_notices_a_lost_connection(venue):
    with Session(venue.endpoints, 3) as session:
        order_id = session.place(0, BUY, 100, 10)
        session.wait_for(order_id)
        venue.drop_connections()
        venue.do(lambda: venue.core.fill(3, order_id, 10))
        assert session.wait_for(order_id, ended=True).status is OrderStatus.FILLED


def test_a_session_that_nobody_answers_says_so():
    # Not a port that the kernel hands out: a client that tries one again and again may meet itself on it.
    address = "tcp://127.0.0.1:1"
    with pytest.raises(VenueError, match=f"no venue answers at {address}"):
        Session(Endpoints(address, address, address), 3, timeout_s=0.2)


def test_a_refused_session_says_why(venue):
    with pytest.raises(SessionRefused, match="no such account"):
        Session(venue.endpoints, 8)
    with Session(venue.endpoints, 3), pytest.raises(VenueError, match="connected elsewhere"):
        Session(venue.endpoints, 3, timeout_s=0.2)


def test_a_session_repairs_the_tape(venue):
    topics = [wire.subscription(wire.MessageKind.TRADE, 0)]
    with Session(venue.endpoints, 3, topics=topics) as session:
        venue.core.trades = [trade(number) for number in range(1, 9)]
        first = None
        while first is None:  # until the subscription has arrived
            venue.publish(trade(1), market_data=True)
            session.poll(0.01)
            first = next((each for each in session.messages() if isinstance(each, wire.Trade)), None)
        venue.publish(trade(8), market_data=True)
        got = [first]
        while got[-1].number < 8:
            got.append(session.next_message())
        assert numbers(got) == list(range(1, 9))
        assert (session.market.gaps, session.market.repaired, session.market.lost) == (1, 6, 0)


def test_an_async_session_does_the_same(venue):
    async def run():
        async with AsyncSession(venue.endpoints, 3) as session:
            order_id = session.place(0, SELL, 100, 10)
            assert (await session.wait_for(order_id)).status is OrderStatus.OPEN
            await asyncio.to_thread(venue.restart)
            after = session.place(0, SELL, 100, 5)
            assert (await session.wait_for(after)).status is OrderStatus.OPEN
            new = session.replace(after, 101, 4)
            assert (await session.wait_for(new)).leaves_lots == 4
            session.mass_cancel()
            await session.wait_for(new, ended=True)
            assert session.open_orders() == [] and session.state.logons == 2
            heard = []
            async for message in session:
                heard.append(message.kind)
                if message.kind == EventKind.MASS_CANCELLED:
                    break
            assert heard.count(EventKind.ORDER_ACCEPTED) == 2
            with pytest.raises(VenueError, match="no answer within"):
                await session.next_message(0.05)
        return venue.core.commands

    assert len(asyncio.run(run())) == 4


def test_an_async_session_tells_its_waiters_of_a_refusal(venue):
    async def run():
        async with AsyncSession(venue.endpoints, 8):
            pass

    with pytest.raises(SessionRefused, match="no such account"):
        asyncio.run(run())


def test_keys_are_needed_where_the_venue_has_keys():
    keys = generate([3])
    with fake_venue(keys.venue) as venue:
        with Session(venue.endpoints, 3, keys=keys.accounts[3]) as session:
            assert session.wait_for(session.place(0, BUY, 100, 1)).status is OrderStatus.OPEN
        stranger = generate([3]).venue  # another venue's
        wrong = keys.accounts[3]._replace(venue_public=stranger.public)
        for bad in (None, wrong):
            with pytest.raises(VenueError, match=r"do not accept each other's keys|no venue answers"):
                Session(venue.endpoints, 3, keys=bad, timeout_s=0.5)


def test_a_plain_participant_speaks_the_same_protocol(venue):
    with zmq.Context() as context:
        participant = Participant(context, venue.endpoints, 3, [b""])
        try:
            participant.log_on(1, wire.log_on_flags(True, SelfTrade.OFF))
            participant.place(1, 0, BUY, LIMIT, 100, 10, 0, 0)
            participant.replace(2, 1, 0, LIMIT, 101, 10, 0, 0)
            participant.cancel(2, 0, 4, 0, 0)
            participant.mass_cancel(0, 0)
            participant.request_depth(0)
            participant.request_trades(0, 1)
            venue.core.trades = [trade(1)]
            got = []
            while len(got) < 8:
                participant.wait(1000)
                got += [message.kind for message in participant.messages()]
            assert got == [31, 1, 8, 4, 4, 9, 43, 44]
            participant.log_off()
            participant.place(3, 0, BUY, LIMIT, 100, 10, 0, 0)
            participant.wait(5000)
            (refused,) = participant.messages()
            assert (refused.reason, refused.order_id) == (Reason.NOT_LOGGED_ON, 3)
        finally:
            participant.close()


def test_an_operator_with_nobody_to_talk_to_gives_up(tmp_path):
    keys = ClientKeys(*generate([], ["alice"]).operators["alice"])
    with zmq.Context() as context:
        operator = Operator(context, f"ipc://{tmp_path}/control", timeout_ms=50, keys=keys)
        with pytest.raises(VenueError, match="does not answer"):
            operator.request(wire.MessageKind.STATUS)
        operator.close()
