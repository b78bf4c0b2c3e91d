"""The algorithm of 6 May 2010: sells a fixed share of the market's volume, blind to price and time."""

from collections import deque
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aar_swarm.agents.base import CANCELLED, REJECTED, SIGNAL, Action, Event, Rule, Strategy, Timer, Wake
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
        self.due_lots += self.p.share * self.window_volume_lots(now_ns) * (now_ns - self.before_ns) / self.window_ns
        self.before_ns = now_ns
        working = sum(order.leaves_lots for order in self.open_orders.values())
        quantity = min(int(self.due_lots), self.shares - working)
        if quantity <= 0 or self.halted:
            return [wake]
        self.due_lots -= quantity
        return [self.sell(OrderType.MARKET, 0, quantity, Rule.FOLLOW_VOLUME), wake]
