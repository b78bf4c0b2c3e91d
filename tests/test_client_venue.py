"""The robust clients against the real venue, killed and started again on the same port over the same directory."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest
import zmq

from exchange import clock, wire
from exchange.client import Endpoints, Operator
from exchange.config import EngineConfig, InstrumentConfig
from exchange.errors import VenueError
from exchange.keys import generate
from exchange.loop import LoopConfig
from exchange.server import EndowmentConfig, VenueConfig
from exchange.session import AsyncSession, Session
from exchange.session_state import OrderStatus
from exchange.types import CommandKind, EventKind, Reason, Side

pytestmark = pytest.mark.usefixtures("nothing_left")
BUY, SELL = Side.BUY, Side.SELL


class Venue:
    def __init__(self, directory, keys=None):
        (directory / "journal").mkdir()
        self.keys = keys
        self.config = VenueConfig(
            engine=EngineConfig(instruments=(InstrumentConfig(price_levels=1024),), accounts=8, max_orders=1024),
            directory=directory / "journal",
            control=f"ipc://{directory}/control",
            port=_free_ports(),
            loop=LoopConfig(market_data_interval_ns=5 * clock.MS),
            endowment=EndowmentConfig(cash=10**9, lots=10**6),
            open_at_start=True,
            realtime=False,
            keys=None if keys is None else keys.venue,
        )
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "exchange.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.process.stdin.write(self.config.model_dump_json().encode() + b"\n")
        self.process.stdin.flush()
        said = json.loads(self.process.stdout.readline())
        assert "endpoints" in said, said
        self.endpoints = Endpoints(**said["endpoints"])

    def kill(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def restart(self):
        self.kill()
        self.start()

    def operate(self, kind, *values):
        with zmq.Context() as context:
            keys = None if self.keys is None else self.keys.operators["alice"]
            operator = Operator(context, self.config.control, keys=keys)
            try:
                return operator.request(kind, *values)
            finally:
                operator.close()

    def session(self, account, **options):
        keys = None if self.keys is None else self.keys.accounts[account]
        return Session(self.endpoints, account, **{"keys": keys, **options})


def _free_ports():
    """The first of three free ports that the kernel gives to nobody who does not name them."""
    for port in range(20_000 + os.getpid() % 5000, 32_000, 3):
        with contextlib.ExitStack() as stack:
            try:
                for number in range(port, port + 3):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            return port
    raise AssertionError("no free ports")


@pytest.fixture(params=[False, True], ids=["plain", "keys"])
def venue(tmp_path, request):
    running = Venue(tmp_path, generate(range(4), ["alice"]) if request.param else None)
    try:
        yield running
    finally:
        running.kill()


def test_orders_trades_and_the_tape(venue):
    topics = [wire.subscription(kind, 0) for kind in (wire.MessageKind.TRADE, wire.MessageKind.DEPTH)]
    with venue.session(0, topics=topics) as maker, venue.session(1) as taker:
        bid = maker.place(0, BUY, 100, 10)
        maker.wait_for(bid)
        maker.wait_until(lambda: maker.market.depth(0))  # so the subscription has arrived
        hit = taker.place(0, SELL, 100, 4)
        assert taker.wait_for(hit, ended=True).status is OrderStatus.FILLED
        maker.wait_until(lambda: maker.order(bid).filled_lots == 4 or None)
        trade = maker.wait_until(lambda: next((m for m in maker.messages() if isinstance(m, wire.Trade)), None))
        assert (trade.price_ticks, trade.quantity_lots, trade.taker_side) == (100, 4, SELL)
        new = maker.replace(bid, 101, 12)
        assert maker.wait_for(new).leaves_lots == 8
        maker.mass_cancel()
        assert maker.wait_for(new, ended=True).reason == Reason.MASS_CANCEL


def test_a_killed_venue_comes_back_and_no_order_is_lost_or_doubled(venue):
    with venue.session(0) as maker, venue.session(1) as taker:
        bids = [maker.place(0, BUY, 100, 1) for _ in range(50)]
        venue.kill()
        bids += [maker.place(0, BUY, 100, 1) for _ in range(50)]
        venue.start()
        for bid in bids:
            assert maker.wait_for(bid, 30).status is OrderStatus.OPEN
        assert maker.state.logged_on.starts == 2 and not maker.state.reports_lost
        taker.wait_until(lambda: taker.state.logons == 2 or None, 30)
        sold = taker.place(0, SELL, 100, 1000)
        taker.wait_until(lambda: taker.order(sold).filled_lots == 100 or None, 30)
        for bid in bids:
            assert maker.wait_for(bid, 30, ended=True).status is OrderStatus.FILLED
        assert maker.state.duplicates == 0


def test_what_happens_while_a_client_is_away_is_heard_by_the_next(venue):
    with venue.session(0) as maker:
        bid = maker.place(0, BUY, 100, 10)
        maker.wait_for(bid)
        heard = maker.state.heard
    with venue.session(1) as taker:
        taker.wait_for(taker.place(0, SELL, 100, 4), ended=True)
    with venue.session(0, heard=heard) as maker:
        maker.wait_until(lambda: maker.state.ready or None)
        (report,) = [message for message in maker.messages() if isinstance(message, wire.Report)]
        assert (report.kind, report.order_id, report.quantity_lots) == (EventKind.ORDER_FILLED, bid, 4)
        again = maker.place(0, BUY, 90, 1)
        assert again == bid + 1 and maker.wait_for(again).status is OrderStatus.OPEN


def test_orders_are_cancelled_with_the_connection_if_so_chosen(venue):
    with venue.session(0, cancel_on_disconnect=True) as maker:
        bid = maker.place(0, BUY, 100, 10)
        maker.wait_for(bid)
        heard = maker.state.heard
    with venue.session(0, heard=heard, timeout_s=30) as maker:
        (report,) = [message for message in maker.messages() if isinstance(message, wire.Report)]
        assert (report.order_id, report.reason) == (bid, Reason.DISCONNECTED)


def test_an_account_has_one_session(venue):
    with venue.session(0), pytest.raises(VenueError, match="connected elsewhere"):
        venue.session(0, timeout_s=0.5)


def test_keys_decide_who_may_trade(venue):
    if venue.keys is None:
        pytest.skip("a venue without keys")
    with pytest.raises(VenueError, match="the key is not that account's"):
        Session(venue.endpoints, 1, keys=venue.keys.accounts[0])
    for bad in (None, generate([0]).accounts[0]._replace(venue_public=venue.keys.venue.public)):
        with pytest.raises(VenueError, match=r"each other's keys|no venue answers"):
            Session(venue.endpoints, 0, keys=bad, timeout_s=1)
    assert venue.operate(wire.MessageKind.STATUS).reason == 0


def test_an_async_session_survives_a_restart(venue):
    async def run():
        keys = None if venue.keys is None else venue.keys.accounts[0]
        async with AsyncSession(venue.endpoints, 0, keys=keys) as session:
            first = session.place(0, BUY, 100, 1)
            await session.wait_for(first)
            await asyncio.to_thread(venue.restart)
            second = session.place(0, BUY, 100, 1)
            assert (await session.wait_for(second, 30)).status is OrderStatus.OPEN
            assert [order.order_id for order in session.open_orders()] == [first, second]
            venue.operate(CommandKind.CLOSE_SESSION)
            assert (await session.wait_for(first, 30, ended=True)).reason == Reason.SESSION_CLOSED

    asyncio.run(run())
