"""A market maker of the stablecoin."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from aar_swarm.agents.base import SIGNAL, Action, Endowment, Event, Market, Notice
from aar_swarm.agents.market_maker import MarketMaker, MarketMakerParams
from exchange.config import Config
from exchange.wire import MessageKind


class CoinMakerParams(MarketMakerParams):
    credence: Annotated[float, Field(ge=0, le=1)] = 0.2
    """How much of a rumour about the coin it believes."""


class CoinMaker(MarketMaker):
    """Decision rule: a MarketMaker's, for the book of the stablecoin, beginning at par, with its coins as inventory.

    Of a rumour about the coin it takes `credence`; the rest it learns from the flow.
    """

    Params: ClassVar[type[Config]] = CoinMakerParams
    listens_to = ()
    listens_to_coin = (MessageKind.TOP_OF_BOOK,)

    def __init__(self, market: Market, endowment: Endowment, params: Config, rng: np.random.Generator) -> None:
        assert isinstance(params, CoinMakerParams)
        self.credence = params.credence
        coin = market._replace(
            instrument=market.stablecoin, opening_ticks=market.par_ticks, price_levels=market.coin_levels
        )
        super().__init__(coin, endowment, params, rng)
        self.holdings[market.instrument] = endowment.shares

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if isinstance(event, Notice) and event.kind == SIGNAL:
            if event.instrument != self.market.instrument:
                return ()
            event = event._replace(value=round(self.credence * event.value))
        return super().on_event(event, now_ns)
