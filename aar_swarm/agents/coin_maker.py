"""The market maker and the value trader of the asset's book, on the book of the stablecoin instead."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from aar_swarm.agents.base import SIGNAL, Action, Endowment, Event, Market, Notice, Strategy
from aar_swarm.agents.decision import on_the_coin
from aar_swarm.agents.market_maker import MarketMaker, MarketMakerParams
from aar_swarm.agents.value_trader import ValueTrader, ValueTraderParams
from exchange.config import Config
from exchange.types import EventKind
from exchange.wire import MessageKind

_Credence = Annotated[float, Field(ge=0, le=1)]


class OnTheCoin(Strategy):
    """Mixed in before a strategy, makes it trade the stablecoin, which opens at par, with its coins as inventory.

    Of a rumour about the coin it takes the part `credence`; news of the asset it does not hear.
    """

    listens_to: ClassVar[Sequence[MessageKind | EventKind]] = ()

    def __init__(self, market: Market, endowment: Endowment, params: Config, rng: np.random.Generator) -> None:
        self.credence: float = params.credence  # type: ignore[attr-defined]
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


class CoinMakerParams(MarketMakerParams):
    credence: _Credence = 0.2
    """How much of a rumour about the coin it believes."""


class CoinMaker(OnTheCoin, MarketMaker):
    """Decision rule: a MarketMaker's, for the stablecoin. Of a rumour it takes `credence`; it learns from the flow."""

    Params = CoinMakerParams
    decisions = on_the_coin(MarketMaker.decisions)
    listens_to_coin = (MessageKind.TOP_OF_BOOK,)


class CoinValueTraderParams(ValueTraderParams):
    credence: _Credence = 0.5


class CoinValueTrader(OnTheCoin, ValueTrader):
    """Decision rule: a ValueTrader's, for the stablecoin: patient bids below par. Of a rumour it takes `credence`."""

    Params = CoinValueTraderParams
    decisions = on_the_coin(ValueTrader.decisions)
    listens_to_coin = (MessageKind.SLOW_TOP_OF_BOOK,)
