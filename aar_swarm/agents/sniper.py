"""A sniper: at public news it takes the quotes that have become stale, if it is there before their owners."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import FILLED, Action, Event, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, Fact, buy, own, private, public, sell
from aar_swarm.agents.public_value import BPS, PublicValue
from exchange.clock import MS
from exchange.config import Config
from exchange.types import OrderType
from exchange.wire import MessageKind, TopOfBook


class SniperParams(Config):
    margin_bps: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Its costs: it takes what is at least so much better than the value."""
    quantity_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 40
    position_limit_lots: Annotated[int, Field(ge=1, le=1 << 30)] = 400
    hold_ms: Annotated[float, Field(ge=1, le=3_600_000)] = 400.0
    """Mean time until it gives back what it took."""
    reach_bps: Annotated[float, Field(ge=0, le=1000)] = 100.0
    """How far from the value it then trades."""


def snipe(
    value_ticks: float, bid_ticks: int, bid_lots: int, ask_ticks: int, ask_lots: int, margin_bps: float,
    quantity_lots: int, inventory: int, limit_lots: int,
) -> Choice | None:  # fmt: skip
    """At the new value less its costs, if a quote that it last saw is stale beyond that."""
    costs = value_ticks * margin_bps / BPS
    highest, lowest = math.floor(value_ticks - costs), math.ceil(value_ticks + costs)
    if ask_lots and ask_ticks <= highest:
        lots = min(quantity_lots, limit_lots - inventory)
        return buy(OrderType.IOC, highest, lots) if lots > 0 else None
    if bid_lots and bid_ticks >= lowest:
        lots = min(quantity_lots, limit_lots + inventory)
        return sell(OrderType.IOC, lowest, lots) if lots > 0 else None
    return None


def give_back(value_ticks: float, reach_bps: float, inventory: int, quantity_lots: int) -> Choice | None:
    """A part of its inventory, at what others quote, within its reach."""
    lots = min(abs(inventory), quantity_lots)
    reach = value_ticks * reach_bps / BPS
    if inventory > 0:
        return sell(OrderType.IOC, max(math.floor(value_ticks - reach), 1), lots)
    return buy(OrderType.IOC, math.ceil(value_ticks + reach), lots) if inventory else None


_DECISIONS: dict[int, Decision] = {
    Rule.SNIPE: Decision(
        snipe,
        (
            public("value_ticks", float, Fact.VALUE),
            public("bid_ticks", int, Fact.BID, recent=False),
            public("bid_lots", int, Fact.BID_LOTS, recent=False),
            public("ask_ticks", int, Fact.ASK, recent=False),
            public("ask_lots", int, Fact.ASK_LOTS, recent=False),
            private("margin_bps", float),
            private("quantity_lots"),
            own("inventory", int, Fact.INVENTORY),
            private("limit_lots"),
        ),
        lambda v: (
            f"news made the asset worth {v.value_ticks:.2f}, and it had last seen {v.bid_lots} bid at {v.bid_ticks} "
            f"and {v.ask_lots} offered at {v.ask_ticks}: stale by more than its costs of {v.margin_bps:g} bps"
        ),
    ),
    Rule.REDUCE_INVENTORY: Decision(
        give_back,
        (
            public("value_ticks", float, Fact.VALUE, recent=False),
            private("reach_bps", float),
            own("inventory", int, Fact.INVENTORY),
            private("quantity_lots"),
        ),
        lambda v: f"it held {v.inventory:+d} lots from races and its time to hold them was over",
    ),
}


class Sniper(Strategy):
    """Decision rule.

    At each piece of news, once: if by the new value less its costs the best ask that it last saw is too low (or the
    best bid too high), it sends an IOC for quantity_lots with exactly that limit. In a continuous market the first to
    arrive gets the stale quote at its old price. In a batch the same order is a bid in a sealed auction, in which the
    snipers compete in price and not in time: it is the most that the lots are worth to it there, too.

    What it holds it gives back at a random time (exponential, mean hold_ms), part by part, by an IOC that pays what
    makers quote then.
    """

    Params: ClassVar[type[Config]] = SniperParams
    listens_to: ClassVar[Sequence[MessageKind]] = (MessageKind.TOP_OF_BOOK,)
    decisions: ClassVar[Mapping[int, Decision]] = _DECISIONS

    def setup(self, params: Config) -> None:
        assert isinstance(params, SniperParams)
        self.p = params
        self.value = PublicValue(self.market)
        self.began_with = self.shares
        self.top: TopOfBook | None = None
        self.waiting = False

    @property
    def inventory(self) -> int:
        return self.shares - self.began_with

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, TopOfBook):
            self.top = event
        elif self.value.hear(event):
            return self._snipe()
        elif isinstance(event, Timer):
            self.waiting = False
            return self._give_back(now_ns)
        elif event.kind == FILLED:
            return self._wait(now_ns)
        return ()

    def _snipe(self) -> list[Action]:
        if self.halted or self.top is None:
            return []
        top = self.top
        inputs = (self.value.ticks, top.bid_ticks, top.bid_lots, top.ask_ticks, top.ask_lots, self.p.margin_bps)
        order = self.decide(Rule.SNIPE, *inputs, self.p.quantity_lots, self.inventory, self.p.position_limit_lots)
        return [] if order is None else [order]

    def _give_back(self, now_ns: int) -> list[Action]:
        again = self._wait(now_ns)
        if self.halted or self.open_orders:
            return again
        order = self.decide(
            Rule.REDUCE_INVENTORY, self.value.ticks, self.p.reach_bps, self.inventory, self.p.quantity_lots
        )
        return again if order is None else [order, *again]

    def _wait(self, now_ns: int) -> list[Action]:
        """One timer at a time, while there is something to give back."""
        if self.waiting or not self.inventory:
            return []
        self.waiting = True
        return [Wake(now_ns + int(self.rng.exponential(self.p.hold_ms * MS)), 0)]
