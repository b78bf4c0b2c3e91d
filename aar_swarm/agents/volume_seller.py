"""The algorithm of 6 May 2010: sells a fixed share of the market's volume, blind to price and time."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import CANCELLED, REJECTED, SIGNAL, Action, Event, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, own, private, public, sell
from exchange.clock import MS
from exchange.config import Config
from exchange.types import OrderType
from exchange.wire import MessageKind, Report, TopOfBook


class VolumeSellerParams(Config):
    share: Annotated[float, Field(gt=0, le=1)] = 0.09
    """Of the market's volume that it sells."""
    window_ms: Annotated[float, Field(ge=1, le=3_600_000)] = 1000.0
    """The last minute, scaled: over it the market's volume is taken."""
    period_ms: Annotated[float, Field(ge=1, le=600_000)] = 50.0
    """Between its orders."""


def due_lots(carried_lots: float, share: float, volume_lots: int, elapsed_ns: int, window_ns: int) -> float:
    """What it is to have sold by now: what was carried over, and its share of the volume since the order before."""
    return carried_lots + share * volume_lots * elapsed_ns / window_ns


def follow_volume(
    carried_lots: float, share: float, volume_lots: int, elapsed_ns: int, window_ns: int, shares: int, working_lots: int
) -> Choice | None:
    """The whole lots of what is due, of those that it has and that are not on their way."""
    due = due_lots(carried_lots, share, volume_lots, elapsed_ns, window_ns)
    quantity = min(int(due), shares - working_lots)
    return sell(OrderType.MARKET, 0, quantity) if quantity > 0 else None


_FOLLOW_VOLUME = Decision(
    follow_volume,
    (
        private("carried_lots", float),
        private("share", float),
        public("volume_lots"),
        private("elapsed_ns"),
        private("window_ns"),
        own("shares", int, Fact.POSITION),
        own("working_lots"),
    ),
    lambda v: (
        f"{v.volume_lots} lots traded in the last {v.window_ns / MS:g} ms, of which it sells {v.share:.1%}, its last "
        f"order was {v.elapsed_ns / MS:.0f} ms ago, and {v.carried_lots:.2f} lots were carried over"
    ),
)


class VolumeSeller(Strategy):
    """Decision rule.

    From the first public signal on, whatever it says, until it has sold all its shares: every period_ms a market order
    of share × (volume of the last window_ms) × (time since the order before) / window lots. The volume is the public
    one (TopOfBook), its own trades and everyone's trades with each other included. What a market without bids could not
    take and fractions of lots are carried over. Neither price nor time is in the rule ("an execution rate set to 9 % of
    the trading volume calculated over the previous minute, but without regard to price or time": SEC–CFTC, 30 Sep
    2010).
    """

    Params = VolumeSellerParams
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.FOLLOW_VOLUME: _FOLLOW_VOLUME}
    listens_to = (MessageKind.TOP_OF_BOOK,)

    def setup(self, params: Config) -> None:
        assert isinstance(params, VolumeSellerParams)
        self.p = params
        self.window_ns = int(params.window_ms * MS)
        self.seen: deque[tuple[int, int]] = deque()  # (venue time, volume so far), one older than the window kept
        self.due_lots = 0.0
        self.selling = False
        self.before_ns = 0  # the slice before

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, TopOfBook):
            self.seen.append((event.time_ns, event.volume_lots))
            self._forget(event.time_ns)
        elif event.kind == SIGNAL and not self.selling:
            self.selling = True
            self.before_ns = now_ns
            return self._slice(now_ns)
        elif isinstance(event, Timer):
            return self._slice(now_ns)
        elif isinstance(event, Report) and event.kind in (CANCELLED, REJECTED):
            self.due_lots += event.quantity_lots
        return ()

    def _forget(self, now_ns: int) -> None:
        while len(self.seen) > 1 and self.seen[1][0] <= now_ns - self.window_ns:
            self.seen.popleft()

    def window_volume_lots(self, now_ns: int) -> int:
        """What traded in the window that ends now, by what was published of it.

        now_ns is this agent's clock: it and the venue's are the same on one host; a quiet market publishes nothing.
        """
        self._forget(now_ns)
        return self.seen[-1][1] - self.seen[0][1] if self.seen else 0

    def _slice(self, now_ns: int) -> list[Action]:
        if self.shares <= 0:
            return []
        wake = Wake(now_ns + int(self.p.period_ms * MS), 0)
        volume, elapsed_ns = self.window_volume_lots(now_ns), now_ns - self.before_ns
        due = (self.due_lots, self.p.share, volume, elapsed_ns, self.window_ns)
        self.due_lots = due_lots(*due)
        self.before_ns = now_ns
        if self.halted:
            return [wake]
        working = sum(order.leaves_lots for order in self.open_orders.values())
        order = self.decide(Rule.FOLLOW_VOLUME, *due, self.shares, working)
        if order is None:
            return [wake]
        self.due_lots -= order.quantity_lots
        return [order, wake]
