"""A market maker who quotes around a public value, and learns from what its fills were worth how wide it has to be."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import (
    CANCELLED,
    FILLED,
    OPENED,
    REJECTED,
    Action,
    Event,
    Rule,
    Strategy,
    Timer,
    Wake,
)
from aar_swarm.agents.decision import Choice, Decision, Fact, own, private, public
from aar_swarm.agents.public_value import BPS, PublicValue
from exchange.clock import MS
from exchange.config import Config
from exchange.types import OrderType, Side
from exchange.wire import Report

_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_LOOK, _MARK, _RETRY = 0, 1, 2
"""Tags of its timers."""


class NewsMakerParams(Config):
    half_spread_bps: Annotated[float, Field(gt=0, le=1000)] = 6.0
    """What it begins with; from there it learns."""
    least_bps: Annotated[float, Field(gt=0, le=1000)] = 0.5
    most_bps: Annotated[float, Field(gt=0, le=1000)] = 60.0
    learning: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Bps of half-spread for each bp that a fill of quantity_lots lost (or made, the other way)."""
    mark_ms: Annotated[float, Field(ge=0, le=60_000)] = 50.0
    """How long after a fill its worth is looked at."""
    patience_ms: Annotated[float, Field(ge=1, le=600_000)] = 500.0
    undercut_bps: Annotated[float, Field(ge=0, le=100)] = 0.25
    """How much narrower it quotes after `patience_ms` without a fill."""
    quantity_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 10
    inventory_limit_lots: Annotated[int, Field(ge=1, le=1 << 30)] = 300
    lean_bps: Annotated[float, Field(ge=0, le=1000)] = 6.0
    """How far the quotes stand away at the inventory limit."""
    tolerance_bps: Annotated[float, Field(ge=0, le=1000)] = 0.5
    """A quote that is not further from where it should be stays."""
    period_ms: Annotated[float, Field(ge=1, le=60_000)] = 100.0
    retry_ms: Annotated[float, Field(ge=1, le=60_000)] = 2.0
    """How long it waits before it quotes again what would have crossed a stale quote of somebody else."""


def quote_ticks(value_ticks: float, half_spread_bps: float, lean_bps: float, sign: int) -> int:
    """Where a quote stands (sign 1: a bid, −1: an ask): not nearer to the value less the lean than its half-spread."""
    centre = value_ticks * (1 - lean_bps / BPS)
    away = value_ticks * half_spread_bps / BPS
    return math.floor(centre - away) if sign > 0 else math.ceil(centre + away)


def quote(
    value_ticks: float, half_spread_bps: float, lean_bps: float, sign: int, inventory: int, limit_lots: int,
    working_lots: int, quantity_lots: int,
) -> Choice | None:  # fmt: skip
    """One quote, as far as a fill of all that stands on its side would not pass the inventory limit."""
    price = quote_ticks(value_ticks, half_spread_bps, lean_bps, sign)
    quantity = min(quantity_lots, limit_lots - sign * inventory - working_lots)
    if quantity <= 0 or price <= 0:
        return None
    return Choice(_BUY if sign > 0 else _SELL, int(OrderType.POST_ONLY), price, quantity)


_QUOTE = Decision(
    quote,
    (
        public("value_ticks", float, Fact.VALUE, recent=False),
        private("half_spread_bps", float),
        private("lean_bps", float),
        private("sign"),
        own("inventory", int, Fact.INVENTORY),
        private("limit_lots"),
        own("working_lots"),
        private("quantity_lots"),
    ),
    lambda v: (
        f"the asset was worth {v.value_ticks:.2f} by all news that it had heard, it asked for "
        f"{v.half_spread_bps:.2f} bps on either side, leaned {v.lean_bps:+.2f} bps "
        f"against an inventory of {v.inventory:+d} of at most {v.limit_lots}, and had no "
        f"{'bid' if v.sign > 0 else 'offer'} there"
    ),
)


class NewsMaker(Strategy):
    """Decision rule.

    One bid and one ask stand half_spread away from the public value, less a lean against its inventory. At news both
    are stale: it withdraws what is not where it should be and quotes anew, POST_ONLY; what would cross another's stale
    quote it tries again after retry_ms. Whoever is faster takes the stale quote: that is the race.

    How wide it quotes it learns. `mark_ms` after each fill it looks at what that was worth: e = sign · (value − price)
    in bps of the value, sign + if it bought, by the news of then. half_spread −= learning · e · lots / quantity_lots,
    so that it settles where a fill is worth nothing on average: the zero-profit spread, at which what investors pay is
    what snipers take (Budish, Cramton and Shim, QJE 130(4), 2015). Who had no fill for patience_ms undercuts: makers
    compete. The rule knows nothing of the market's design.
    """

    Params: ClassVar[type[Config]] = NewsMakerParams
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.QUOTE: _QUOTE}

    def setup(self, params: Config) -> None:
        assert isinstance(params, NewsMakerParams)
        self.p = params
        self.value = PublicValue(self.market)
        self.half_spread_bps = params.half_spread_bps * float(self.rng.uniform(0.8, 1.2))
        self.began_with = self.shares
        self.unmarked: list[tuple[int, int, int, int]] = []
        """Fills that it has not looked at yet: when it will, sign, price, lots."""
        self.quiet_since_ns = 0
        self.retrying = False

    @property
    def inventory(self) -> int:
        return self.shares - self.began_with

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if self.value.hear(event):
            return self._quote()
        if isinstance(event, Timer):
            return self._on_timer(event.tag, now_ns)
        if event.kind == OPENED:
            self.quiet_since_ns = now_ns
            return [*self._quote(), self._next_look(now_ns)]
        if not isinstance(event, Report):
            return ()
        if event.kind == FILLED:
            self.quiet_since_ns = now_ns
            due_ns = now_ns + int(self.p.mark_ms * MS)
            self.unmarked.append((due_ns, 1 if event.side == _BUY else -1, event.price_ticks, event.quantity_lots))
            return [*self._quote(), Wake(due_ns, _MARK)]
        if event.kind == REJECTED and not self.retrying:
            self.retrying = True
            return [Wake(now_ns + int(self.p.retry_ms * MS), _RETRY)]
        return self._quote() if event.kind == CANCELLED else ()

    def _on_timer(self, tag: int, now_ns: int) -> list[Action]:
        if tag == _MARK:
            while self.unmarked and self.unmarked[0][0] <= now_ns:
                _, sign, price_ticks, lots = self.unmarked.pop(0)
                self._learn(sign, price_ticks, lots)
            return self._quote()
        if tag == _RETRY:
            self.retrying = False
            return self._quote()
        if now_ns - self.quiet_since_ns > self.p.patience_ms * MS:
            self.quiet_since_ns = now_ns
            self._set(self.half_spread_bps - self.p.undercut_bps)
        return [*self._quote(), self._next_look(now_ns)]

    def _learn(self, sign: int, price_ticks: int, lots: int) -> None:
        earned_bps = sign * (self.value.ticks - price_ticks) / self.value.ticks * BPS
        self._set(self.half_spread_bps - self.p.learning * earned_bps * lots / self.p.quantity_lots)

    def _set(self, half_spread_bps: float) -> None:
        self.half_spread_bps = min(max(half_spread_bps, self.p.least_bps), self.p.most_bps)

    def _next_look(self, now_ns: int) -> Wake:
        return Wake(now_ns + int(self.p.period_ms * MS * self.rng.uniform(0.5, 1.5)), _LOOK)

    def _quote(self) -> list[Action]:
        """Withdraw what is stale, first; then fill the gaps. In a halt neither is possible."""
        if self.halted:
            return []
        inventory, limit = self.inventory, self.p.inventory_limit_lots
        lean_bps = self.p.lean_bps * inventory / limit
        tolerance = self.value.ticks * self.p.tolerance_bps / BPS
        withdrawn: list[Action] = []
        placed: list[Action] = []
        for side, sign in ((_BUY, 1), (_SELL, -1)):
            wanted = quote_ticks(self.value.ticks, self.half_spread_bps, lean_bps, sign)
            standing = False
            working = 0
            for number, order in self.open_orders.items():
                if order.side != side:
                    continue
                working += order.leaves_lots
                if order.cancelling:
                    continue
                if not standing and abs(order.price_ticks - wanted) <= tolerance:
                    standing = True
                else:
                    withdrawn.append(self.cancel(number, Rule.WITHDRAW))
            if standing:
                continue
            quantity = self.p.quantity_lots
            inputs = (self.value.ticks, self.half_spread_bps, lean_bps, sign, inventory, limit, working, quantity)
            order_placed = self.decide(Rule.QUOTE, *inputs)
            if order_placed is not None:
                placed.append(order_placed)
        return [*withdrawn, *placed]
