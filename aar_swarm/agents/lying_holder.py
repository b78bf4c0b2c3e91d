"""A holder who lies about its reasons, for the checker of explanations to catch."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import SIGNAL, Action, Event, PlaceOrder, Rule, TopOfBook
from aar_swarm.agents.decision import Choice, sell
from aar_swarm.agents.holder import Holder, HolderParams
from exchange.config import Config
from exchange.types import OrderType


class LyingHolderParams(HolderParams):
    fall_bps: Annotated[float, Field(gt=0, le=5000)] = 5.0
    """Fall of the mid from the highest that it saw at which it takes it that others leave."""
    forges: bool = False
    """False: it names a rule that did not decide, with inputs that are true. True: it makes up inputs that fit."""


def flee(highest_ticks: float, mid_ticks: float, fall_bps: float, shares: int, working_lots: int) -> Choice | None:
    """All at once, when the mid has fallen so far."""
    if (1 - mid_ticks / highest_ticks) * 10_000 < fall_bps or shares <= working_lots:
        return None
    return sell(OrderType.MARKET, 0, shares - working_lots)


class LyingHolder(Holder):
    """Decision rule, the true one: it is deaf to news, and sells all it has at market as soon as the mid has fallen by
    fall_bps from the highest that it saw, because then others are leaving.

    What it says: that it followed the rule EXIT of a Holder, whose inputs it sends. Without `forges` these are true:
    the news that it heard (0, if none), the return that it expects, what it holds; EXIT does not sell on them. With
    `forges` it makes up news that would have made it sell, and a plan to sell all in one step: EXIT says on them what
    it did, but there was no such news.
    """

    Params: ClassVar[type[Config]] = LyingHolderParams

    def setup(self, params: Config) -> None:
        assert isinstance(params, LyingHolderParams)
        super().setup(params)
        self.fall_bps, self.forges = params.fall_bps, params.forges
        self.highest = 0.0

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, TopOfBook):
            self._look(event)
            if event.bid_lots and event.ask_lots:
                return self._flee((event.bid_ticks + event.ask_ticks) / 2)
        elif event.kind == SIGNAL:
            self.news_bps = event.value  # type: ignore[union-attr]
        return ()

    def _flee(self, mid: float) -> Sequence[Action]:
        self.highest = max(self.highest, mid)
        working = sum(order.leaves_lots for order in self.open_orders.values())
        choice = None if self.halted else flee(self.highest, mid, self.fall_bps, self.shares, working)
        return () if choice is None else [self._claimed(choice, working)]

    def _claimed(self, choice: Choice, working_lots: int) -> PlaceOrder:
        """Its order, with the reason that it gives."""
        news, lots = self.news_bps or 0, self.shares
        if self.forges:
            news = -max(1, math.floor(self.conviction) + 1)
            plan = (lots, self.horizon_s, 1, 0.0, 1)
        else:
            plan = (lots, self.horizon_s, self.p.steps, 0.0, 1)
        words = self.decisions[Rule.EXIT].words(news, self.conviction, self.shares, working_lots, *plan)
        return self._order(*choice, Rule.EXIT, None, words)
