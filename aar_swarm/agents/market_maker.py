"""A market maker who learns from the flow, leans against its inventory, and withdraws at its limits."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import FILLED, OPENED, SIGNAL, Action, Event, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, own, private, public
from exchange.clock import MS
from exchange.config import Config
from exchange.types import EventKind, OrderType, Side
from exchange.wire import MessageKind, Report, TopOfBook

_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_BPS = 10_000


class MarketMakerParams(Config):
    half_spread_ticks: Annotated[int, Field(ge=1, le=1000)] = 4
    levels: Annotated[int, Field(ge=1, le=20)] = 3
    step_ticks: Annotated[int, Field(ge=1, le=1000)] = 8
    quantity_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 60
    inventory_limit_lots: Annotated[int, Field(ge=1, le=1 << 30)] = 900
    lean_ticks: Annotated[float, Field(ge=0, le=10_000)] = 60.0
    """How far the quotes stand away at the inventory limit."""
    learning_ticks_per_lot: Annotated[float, Field(ge=0, le=10)] = 0.01
    tolerance_ticks: Annotated[int, Field(ge=0, le=1000)] = 2
    period_ms: Annotated[float, Field(ge=1, le=60_000)] = 100.0
    toxicity_limit: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Imbalance of its own fills, 0 … 1, beyond which the flow is toxic; 1: it never is."""
    toxicity_inventory_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the inventory limit above which toxic flow makes it withdraw."""
    toxicity_memory_ms: Annotated[float, Field(ge=1, le=600_000)] = 1000.0


def quote_ticks(fair: float, lean_ticks: float, distance_ticks: int, behind_ticks: int, opposite_ticks: int) -> int:
    """Where a quote stands: a distance (below 0: a bid's) from the fair value less the lean, never across the opposite
    price, and so far behind that."""
    first = round(fair - lean_ticks + distance_ticks)
    first = min(first, opposite_ticks - 1) if distance_ticks < 0 else max(first, opposite_ticks + 1)
    return first + behind_ticks


def quote(
    fair: float, lean_ticks: float, distance_ticks: int, behind_ticks: int, opposite_ticks: int, inventory: int,
    limit_lots: int, working_lots: int, quantity_lots: int,
) -> Choice | None:  # fmt: skip
    """A quote there, as far as a fill of all that stands on its side would not pass the inventory limit."""
    price = quote_ticks(fair, lean_ticks, distance_ticks, behind_ticks, opposite_ticks)
    towards = inventory if distance_ticks < 0 else -inventory
    quantity = min(quantity_lots, limit_lots - towards - working_lots)
    if quantity <= 0 or price <= 0:
        return None
    return Choice(_BUY if distance_ticks < 0 else _SELL, int(OrderType.LIMIT), price, quantity)


_QUOTE = Decision(
    quote,
    (
        private("fair", float),
        private("lean_ticks", float),  # what its inventory takes off the fair value
        private("distance_ticks"),  # half its spread; below 0 on the side of the bids
        private("behind_ticks"),  # of a deeper level, signed likewise
        public("opposite_ticks", int, Fact.TOUCH),  # the best price of the other side that it last saw
        own("inventory", int, Fact.INVENTORY),
        private("limit_lots"),
        own("working_lots"),  # on this side
        private("quantity_lots"),
    ),
    lambda v: (
        f"it holds the asset for worth {v.fair:.2f}, leans {v.lean_ticks:+.2f} against an inventory of "
        f"{v.inventory:+d} of at most {v.limit_lots}, and no order of it stood "
        f"{abs(v.distance_ticks + v.behind_ticks)} ticks from there"
    ),
)


class MarketMaker(Strategy):
    """Decision rule.

    A fair value, first the opening price, is moved by each own fill by `learning_ticks_per_lot` a lot against the
    maker (what the flow knows: Glosten and Milgrom 1985, Kyle 1985), by public signals in full, and by a tenth of the
    way to the mid at each look at the market. Quotes stand `levels` deep on both sides of the fair value less
    `lean_ticks` × inventory / limit (inventory aversion: Avellaneda and Stoikov 2008); none crosses the best opposite
    price it last saw. A side on which a fill would pass the inventory limit is withdrawn until the inventory is back
    below four fifths of it.

    The flow that it sees is *toxic* to a side when (B − S) / (B + S + quantity_lots) exceeds toxicity_limit, with B and
    S the lots that it bought and sold (for its asks: sold and bought), forgotten exponentially with toxicity_memory_ms.
    An imbalance of the flow foretells little by itself (VPIN has no incremental power on its own), so only together
    with an inventory of more than toxicity_inventory_share of the limit, in the direction in which the flow pushes it,
    does it make the maker withdraw that side, until either no longer holds. While the market is halted it does nothing,
    and it is back at its next look.
    """

    Params: ClassVar[type[Config]] = MarketMakerParams
    listens_to: ClassVar[Sequence[MessageKind | EventKind]] = (MessageKind.TOP_OF_BOOK,)
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.QUOTE: _QUOTE}

    def setup(self, params: Config) -> None:
        assert isinstance(params, MarketMakerParams)
        self.p = params
        self.target = self.shares
        self.fair = self.market.opening_ticks + float(self.rng.normal(0, 1))
        self.withdrawn = [False, False]
        self.best_bid, self.best_ask = 0, self.market.price_levels
        self.flow = [0.0, 0.0]  # lots bought and sold, of late
        self.flow_ns = 0

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, Timer) or event.kind == OPENED:
            pause_ns = int(self.p.period_ms * MS * self.rng.uniform(0.5, 1.5))
            self._remember(now_ns)
            return [*self._quote(), Wake(now_ns + pause_ns, 0)]
        if event.kind == SIGNAL:
            self.fair *= 1 + event.value / _BPS  # type: ignore[union-attr]
            return self._quote()
        if isinstance(event, Report) and event.kind == FILLED:
            sign = -1 if event.side == _BUY else 1
            self.fair += sign * self.p.learning_ticks_per_lot * event.quantity_lots
            self._remember(now_ns)
            self.flow[event.side] += event.quantity_lots
            return self._quote()
        if isinstance(event, TopOfBook):
            self.best_bid, self.best_ask = event.bid_ticks, event.ask_ticks
        if isinstance(event, TopOfBook) and event.bid_lots and event.ask_lots:
            self.fair += 0.1 * ((event.bid_ticks + event.ask_ticks) / 2 - self.fair)
        return ()

    def _remember(self, now_ns: int) -> None:
        kept = math.exp(-(now_ns - self.flow_ns) / (self.p.toxicity_memory_ms * MS))
        self.flow = [lots * kept for lots in self.flow]
        self.flow_ns = now_ns

    def is_toxic(self, side: Side) -> bool:
        """The flow pushes its inventory on this side (BUY: others sell to it), and it holds much on it already."""
        inventory = self.shares - self.target
        towards = inventory if side == Side.BUY else -inventory
        imbalance = (self.flow[side] - self.flow[1 - side]) / (sum(self.flow) + self.p.quantity_lots)
        much = self.p.toxicity_inventory_share * self.p.inventory_limit_lots
        return imbalance > self.p.toxicity_limit and towards > much

    def _quote(self) -> list[Action]:
        """Cancel what no longer stands where it should, and fill the gaps; in a halt neither is possible."""
        if self.halted:
            return []
        limit = self.p.inventory_limit_lots
        inventory = self.shares - self.target
        lean = self.p.lean_ticks * inventory / limit
        actions: list[Action] = []
        for side in (Side.BUY, Side.SELL):
            towards = inventory if side == Side.BUY else -inventory
            resting = sum(o.leaves_lots for o in self.open_orders.values() if o.side == side)
            if towards >= limit:
                self.withdrawn[side] = True
            elif towards < 0.8 * limit:
                self.withdrawn[side] = False
            room = 0 if self.withdrawn[side] or self.is_toxic(side) else limit - towards
            sign = -1 if side == Side.BUY else 1
            distance = sign * self.p.half_spread_ticks
            opposite = self.best_ask if side == Side.BUY else self.best_bid
            behind = [sign * level * self.p.step_ticks for level in range(self.p.levels)]
            wanted = {quote_ticks(self.fair, lean, distance, far, opposite): far for far in behind}
            for order_id, order in list(self.open_orders.items()):
                if order.side != side or order.cancelling:
                    continue
                near = [price for price in wanted if abs(price - order.price_ticks) <= self.p.tolerance_ticks]
                if near and room >= order.leaves_lots:
                    del wanted[near[0]]
                    room -= order.leaves_lots
                else:
                    actions.append(self.cancel(order_id, Rule.WITHDRAW))
            if self.withdrawn[side] or self.is_toxic(side):
                continue
            # Orders still being cancelled count against the limit until the venue confirms.
            for far in wanted.values():
                placed = self.decide(
                    Rule.QUOTE,
                    self.fair,
                    lean,
                    distance,
                    far,
                    opposite,
                    inventory,
                    limit,
                    resting,
                    self.p.quantity_lots,
                )
                if placed is not None:
                    resting += placed.quantity_lots
                    actions.append(placed)
        return actions
