"""A holder of a stablecoin who runs to the issuer when it believes that enough others run."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm.agents.base import (
    REDEEMED,
    REQUEST_REJECTED,
    SIGNAL,
    Action,
    Event,
    Notice,
    Rule,
    Strategy,
    Timer,
    Wake,
)
from aar_swarm.agents.decision import Choice, Decision, Fact, own, private, public, sell
from aar_swarm.theory import tipping_point
from exchange.clock import MS
from exchange.config import Config
from exchange.types import CommandKind, OrderType, Reason, Side
from exchange.wire import MessageKind, Report, TopOfBook

_BPS = 10_000
_SELL = int(Side.SELL)


class RedeemerParams(Config):
    credence: Annotated[float, Field(ge=0, le=2)] = 1.0
    """Mean over holders of the part of a rumour that each believes."""
    credence_spread: Annotated[float, Field(ge=0, le=2)] = 0.5
    convenience_bps: Annotated[float, Field(gt=0, le=10_000)] = 1000.0
    """What keeping the coin is worth to it beyond its price: yield, and the trouble of coming back."""
    expected_run_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Mean over holders of the share of the others that each expects to run at once."""
    run_share_spread: Annotated[float, Field(ge=0, le=1)] = 0.1
    panic_bps: Annotated[float, Field(gt=0, le=10_000)] = 500.0
    """Discount of the coin's mid to par at which it takes it that everybody runs."""
    request_lots: Annotated[int, Field(ge=1, le=1 << 20)] = 50
    """Most that it redeems at once."""
    retry_ms: Annotated[float, Field(ge=1, le=600_000)] = 250.0


_OPEN, _RATE_REFUSED, _EXHAUSTED = range(3)
"""What it knows of the issuer's door."""


def backing(rumour: float, cash_a_coin: float) -> float:
    """v: what it believes to stand behind a coin, in units of par."""
    return max(0.0, 1 + rumour, min(1.0, cash_a_coin))


def recovery(rumour: float, cash_a_coin: float) -> float:
    """What it believes a coin to be worth once the issuer's cash is gone, in units of par."""
    if cash_a_coin >= 1:
        return backing(rumour, cash_a_coin)
    return max(0.0, (backing(rumour, cash_a_coin) - cash_a_coin) / (1 - cash_a_coin))


def sell_coin(
    belief: float, tipping_point: float, rumour: float, cash_a_coin: float, door: int, bid_ticks: int, par_ticks: int,
    coins: int, selling_lots: int,
) -> Choice | None:  # fmt: skip
    """Running: all that it is not selling yet. At par, if that is bid; down to the backing, if the issuer's rate
    refuses; down to what may be recovered, if its cash is gone."""
    if belief <= tipping_point:
        return None
    if door == _EXHAUSTED:
        worth = recovery(rumour, cash_a_coin)
    elif door == _RATE_REFUSED:
        worth = backing(rumour, cash_a_coin)
    elif bid_ticks >= par_ticks:
        worth = 1.0
    else:
        return None
    lots = coins - selling_lots
    return sell(OrderType.IOC, max(1, round(worth * par_ticks)), lots) if lots > 0 else None


_DOORS = ("the book pays par", "the issuer's rate refuses", "the issuer's cash is gone")
_SELL_COIN = Decision(
    sell_coin,
    (
        private("belief", float),  # the share of the others that run, when it began to run
        private("tipping_point", float),  # the share at which running is better, then
        private("rumour", float),  # as much of it as it believes
        public("cash_a_coin", float),  # of the issuer, in units of par
        own("door"),  # 0: it redeems; 1, 2: it refused, for its rate or because its cash is gone
        public("bid_ticks"),
        public("par_ticks"),
        own("coins", int, Fact.POSITION),
        own("selling_lots"),
    ),
    lambda v: (
        f"it believed {v.belief:.0%} of the others to run, more than the {v.tipping_point:.0%} at which it runs too, "
        f"with a backing of {backing(v.rumour, v.cash_a_coin):.3f} a coin, and {_DOORS[v.door]}"
    ),
    coin=True,
)


class Redeemer(Strategy):
    """Decision rule.

    What backs a coin, in units of par: v = 1 + credence × rumour, but never less than the issuer's attested cash a
    coin, which no rumour takes away. The issuer serves in the order of arrival, so this is Diamond and Dybvig's (1983)
    bank with R = 1 + convenience and r₁ = 1/v: waiting is worse than running once more than the tipping point f* = (v·R
    − 1)/(R − 1) run (aar_swarm.theory). It believes that expected_run_share of the others run, and more as the coin's
    mid falls below par: all of them at panic_bps. Once its belief exceeds f* it runs, for good.

    Running: it redeems request_lots at a time, or sells on the book while that pays par or more. If the issuer refuses
    because of its rate, it sells on the book down to v, and asks again after about retry_ms. If it refuses because its
    reserves are exhausted, there is only the book, down to what a coin may still recover: (v − c)/(1 − c), where c is
    the cash a coin that the issuer had.
    """

    Params: ClassVar[type[Config]] = RedeemerParams
    listens_to_coin = (MessageKind.SLOW_TOP_OF_BOOK,)
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.SELL_COIN: _SELL_COIN}

    def setup(self, params: Config) -> None:
        assert isinstance(params, RedeemerParams)
        self.p = params
        self.credence = max(0.0, float(self.rng.normal(params.credence, params.credence_spread)))
        prior = float(self.rng.normal(params.expected_run_share, params.run_share_spread))
        self.prior = min(max(prior, 0.0), 1.0)
        supply = self.market.coin_supply_lots * self.market.par_ticks
        self.cash_a_coin = self.market.reserves / supply if supply else 0.0
        self.rumour = 0.0
        self.discount = 0.0
        self.bid_ticks = 0
        self.running = False
        self.belief = (0.0, 0.0)  # the share of the others that run, and the tipping point, when it began to run
        self.exhausted = False
        self.asked_lots = 0
        """Of the redemption that was not answered yet."""

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        coin, par = self.market.stablecoin, self.market.par_ticks
        if isinstance(event, TopOfBook) and event.instrument == coin:
            self.bid_ticks = event.bid_ticks if event.bid_lots else 0
            if event.bid_lots and event.ask_lots:
                self.discount = max(0.0, 1 - (event.bid_ticks + event.ask_ticks) / 2 / par)
        elif isinstance(event, Notice) and event.kind == SIGNAL and event.instrument == coin:
            self.rumour += self.credence * event.value / _BPS
        elif isinstance(event, Report) and event.kind == REDEEMED:
            self.asked_lots = 0
            return self._run(now_ns)
        elif isinstance(event, Report) and event.kind == REQUEST_REJECTED:
            return self._refused(event.reason, now_ns)
        elif isinstance(event, Timer):
            return self._run(now_ns)
        else:
            return ()
        if not self.running:
            self.belief = (self.run_share(), self.tipping_point())
            self.running = self.belief[0] > self.belief[1]
            if self.running:
                return self._run(now_ns)
        return ()

    def run_share(self) -> float:
        return min(1.0, self.prior + self.discount * _BPS / self.p.panic_bps)

    def tipping_point(self) -> float:
        backed = backing(self.rumour, self.cash_a_coin)
        return tipping_point(1 + self.p.convenience_bps / _BPS, 1 / backed) if backed > 0 else 0.0

    def _selling(self) -> int:
        coin = self.market.stablecoin
        return sum(o.leaves_lots for o in self.open_orders.values() if o.side == _SELL and o.instrument == coin)

    def _run(self, now_ns: int) -> list[Action]:
        """Take the better of the two doors; whoever has left keeps no timer."""
        free = self.coins - self.asked_lots - self._selling()
        if free <= 0 or self.asked_lots or self.liquidating:
            return []
        par = self.market.par_ticks
        if self.exhausted:
            return [*self._sell(_EXHAUSTED), self._again(now_ns)]
        if self.bid_ticks >= par:
            sold = self._sell(_OPEN)
            self.bid_ticks = 0  # until it looks again
            return [*sold, self._again(now_ns)]
        self.asked_lots = min(free, self.p.request_lots)
        return [self.request(CommandKind.REDEEM, self.asked_lots, Rule.REDEEM)]

    def _refused(self, reason: int, now_ns: int) -> list[Action]:
        self.asked_lots = 0
        if reason == Reason.RESERVES_EXHAUSTED:
            self.exhausted = True
            return self._run(now_ns)
        if reason == Reason.REDEMPTION_RATE:
            return [*self._sell(_RATE_REFUSED), self._again(now_ns)]
        return []

    def _sell(self, door: int) -> list[Action]:
        order = self.decide(
            Rule.SELL_COIN,
            *self.belief,
            self.rumour,
            self.cash_a_coin,
            door,
            self.bid_ticks,
            self.market.par_ticks,
            self.coins,
            self._selling(),
        )
        return [] if order is None else [order]

    def _again(self, now_ns: int) -> Wake:
        return Wake(now_ns + int(self.p.retry_ms * MS * self.rng.uniform(0.5, 1.5)), 0)
