"""A strategy driven by random but possible events: market data, news, halts, timers, and what becomes of its orders.

Owns the driver and one setting of every shipped strategy; no expectations. Books are sometimes one-sided or empty.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from aar_swarm.agents.base import (
    Action,
    CancelOrder,
    Endowment,
    Market,
    PlaceOrder,
    Request,
    Strategy,
    Timer,
    Valuation,
    Wake,
)
from aar_swarm.names import agent_stream, strategy_class
from exchange.clock import MS
from exchange.types import CommandKind, EventKind, Phase, Reason
from exchange.wire import Loan, MessageKind, Notice, Report, TopOfBook

MARKET = Market(
    instrument=0, opening_ticks=10_000, price_levels=16_384, initial_margin_bps=1000, maintenance_margin_bps=500,
    stablecoin=1, par_ticks=1000, coin_levels=2048, max_ltv_bps=8000, liquidation_threshold_bps=8250,
    close_factor_bps=5000, bonus_bps=500, coin_initial_margin_bps=1000, coin_maintenance_margin_bps=500,
    reserves=500_000, coin_supply_lots=1000, open_interest_lots=20_000,
)  # fmt: skip
_AGENTS = "aar_swarm.agents."
KINDS: list[tuple[str, dict[str, Any], Endowment]] = [
    ("market_maker:MarketMaker", {"toxicity_limit": 0.5, "inventory_limit_lots": 300}, Endowment(10**8, 4000)),
    ("market_maker:MarketMaker", {"half_spread_ticks": 1, "levels": 5, "step_ticks": 1}, Endowment(10**6, 100)),
    ("value_trader:ValueTrader", {"pause_move_bps": 80.0, "margin_bps": 5.0}, Endowment(3 * 10**6, 400)),
    ("value_trader:ValueTrader", {"opinion_bps": 300.0, "rungs_bps": (20.0, 90.0, 6500.0)}, Endowment(10**9, 9000)),
    ("noise_trader:NoiseTrader", {}, Endowment(30_000, 8)),
    ("holder:Holder", {}, Endowment(1, 60)),
    ("holder:Holder", {"risk_aversion": 1.0, "steps": 4, "horizon_s": 0.2}, Endowment(1, 700)),
    ("leveraged_holder:LeveragedHolder", {"anticipating_share": 0.7}, Endowment(-150_000, 20, 10, 5.0)),
    ("leveraged_holder:LeveragedHolder", {"conviction_bps": 200.0}, Endowment(-550_000, 60, 0, 10.0)),
    ("momentum:Momentum", {"threshold_bps": 4.0}, Endowment(10**6, 50)),
    ("momentum:Momentum", {"threshold_bps": 1.0, "reach_ticks": 7000}, Endowment(10**6, 10)),
    ("volume_seller:VolumeSeller", {}, Endowment(0, 500)),
    ("high_frequency:HighFrequency", {}, Endowment(10**7, 500)),
    ("high_frequency:HighFrequency", {"take_imbalance": 1.0, "reach_ticks": 7000}, Endowment(10**7, 500)),
    ("fundamental:Fundamental", {"side": "buy", "think_ms": 50.0, "period_ms": 90.0}, Endowment(10**7, 0)),
    ("fundamental:Fundamental", {"side": "sell", "think_ms": 50.0, "period_ms": 90.0}, Endowment(0, 900)),
    ("vendor_fund:VendorFund", {"silent_periods": 2, "period_ms": 90.0}, Endowment(10**7, 300)),
    ("redeemer:Redeemer", {}, Endowment(0, 0, 900)),
    ("coin_maker:CoinMaker", {}, Endowment(10**7, 0, 900)),
    ("coin_maker:CoinValueTrader", {"margin_bps": 5.0, "credence": 0.0}, Endowment(10**7, 0, 900)),
    ("coin_arbitrageur:CoinArbitrageur", {"margin_bps": 5.0}, Endowment(10**6, 0, 0)),
    ("borrower:Borrower", {"attentive_share": 1.0}, Endowment(0, 20, 0)),
    ("liquidator:Liquidator", {}, Endowment(0, 0, 900)),
    ("news_maker:NewsMaker", {}, Endowment(10**9, 4000)),
    ("sniper:Sniper", {"hold_ms": 50.0}, Endowment(10**9, 4000)),
    ("investor:Investor", {}, Endowment(10**8, 400)),
]  # fmt: skip


def strategy(number: int, seed: int) -> Strategy:
    name, params, endowment = KINDS[number]
    kind = strategy_class(_AGENTS + name)
    return kind(MARKET, endowment, kind.Params.model_validate(params), agent_stream(seed, number))


class _World:
    """What the strategy has asked for and was not answered yet, and a price that wanders."""

    def __init__(self, made: Strategy, rng: np.random.Generator) -> None:
        self.made, self.rng = made, rng
        self.now = 0
        self.wakes: list[Wake] = []
        self.working: dict[int, list[int]] = {}  # order → instrument, side, price, leaves
        self.requests: list[Request] = []
        self.mids = {0: 10_000.0, 1: 1000.0}
        self.volume = 0

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def top(self, instrument: int) -> TopOfBook:
        rng, levels = self.rng, MARKET.coin_levels if instrument else MARKET.price_levels
        self.mids[instrument] = mid = min(
            max(self.mids[instrument] * (1 + 0.002 * float(rng.normal())), 5), levels - 60
        )
        half = int(rng.integers(1, 1 + max(2, int(mid / 1000))))
        bid, ask = int(mid) - half, int(mid) + half - int(rng.integers(0, 2))
        bid_lots, ask_lots = (int(n) for n in rng.integers(0 if self.chance(0.2) else 1, 200, 2))
        bid, ask = (bid if bid_lots else 0), (max(ask, bid + 1) if ask_lots else levels)
        self.volume += int(rng.integers(0, 300))
        depth = [int(n) for n in rng.integers(0, 4000, 2)]
        kind = int(MessageKind.SLOW_TOP_OF_BOOK)
        return TopOfBook(
            kind, instrument, 1, 4, self.now, 1, bid, bid_lots, ask, ask_lots, int(mid), self.volume, *depth
        )

    def notice(self, kind: EventKind, instrument: int = 0, value: int = 0, price: int = 0) -> Notice:
        return Notice(int(kind), 5, self.now, instrument, 0, value, 0, 0, price, 0, 0, 0)

    def report(self, kind: EventKind, **fields: int) -> Report:
        return Report(int(kind), 8, self.now, 0, 0, 0, 0, 0, 0, 0, 0, 0)._replace(**fields)

    def fate(self) -> Report | None:
        """Something happens to one of its orders or requests."""
        if self.requests and self.chance(0.4):
            return self.answer(self.requests.pop(0))
        if not self.working:
            return None
        number = list(self.working)[int(self.rng.integers(len(self.working)))]
        instrument, side, price, leaves = order = self.working[number]
        fields = {"instrument": instrument, "order_id": number, "side": side}
        if self.chance(0.7):
            lots = leaves if self.chance(0.5) else int(self.rng.integers(1, leaves + 1))
            order[3] -= lots
            kind, fields = EventKind.ORDER_FILLED, {**fields, "price_ticks": price, "quantity_lots": lots}
        else:
            kind, order[3] = EventKind.ORDER_CANCELLED, 0
            fields |= {"quantity_lots": leaves, "reason": int(Reason.NO_LIQUIDITY)}
        if not order[3]:
            del self.working[number]
        return self.report(kind, leaves_lots=order[3], **fields)

    def answer(self, asked: Request) -> Report:
        answers = {
            CommandKind.DEPOSIT_COLLATERAL: EventKind.COLLATERAL_DEPOSITED, CommandKind.BORROW: EventKind.BORROWED,
            CommandKind.REPAY: EventKind.REPAID, CommandKind.LIQUIDATE: EventKind.LOAN_LIQUIDATED,
            CommandKind.REDEEM: EventKind.REDEEMED, CommandKind.MINT: EventKind.MINTED,
        }  # fmt: skip
        if self.chance(0.3):
            reason = int(Reason.RESERVES_EXHAUSTED if self.chance(0.2) else Reason.REDEMPTION_RATE)
            kind = EventKind.REQUEST_REJECTED
            return self.report(kind, instrument=-1, order_id=asked.target, reason=reason, reference=asked.kind)
        kind, price = answers[CommandKind(asked.kind)], MARKET.par_ticks
        taken = int(asked.quantity_lots // 10) if kind == EventKind.LOAN_LIQUIDATED else 0
        return self.report(
            kind, instrument=1, quantity_lots=asked.quantity_lots, price_ticks=price, liquidity=1, leaves_lots=taken
        )

    def event(self) -> Any:
        rng = self.rng
        self.now += int(rng.exponential(20 * MS))
        due = [wake for wake in self.wakes if wake.at_ns <= self.now]
        if due:
            self.wakes.remove(due[0])
            return Timer(due[0].tag)
        draw = rng.random()
        if draw < 0.45:
            return self.top(0)
        if draw < 0.6:
            return self.top(1)
        if draw < 0.62:
            return self.notice(EventKind.SIGNAL_PUBLISHED, int(rng.integers(0, 2)), int(rng.integers(-300, 150)))
        if draw < 0.63:
            return self.notice(EventKind.INSTRUMENT_HALTED)
        if draw < 0.66:
            return self.notice(EventKind.PHASE_CHANGED, 0, int(Phase.AUCTION if self.chance(0.3) else Phase.CONTINUOUS))
        if draw < 0.7:
            return self.notice(EventKind.ORACLE_UPDATED, int(self.chance(0.2)), 0, int(self.mids[0] * 0.9))
        if draw < 0.72:
            return Loan(int(MessageKind.LOAN), 0, 1, 5, self.now, int(rng.integers(3)), 20, int(rng.integers(0, 200)))
        if draw < 0.76:
            return Valuation(
                float(self.mids[0] * (1 + 0.05 * rng.normal())), 1 + int(self.chance(0.1)), self.chance(0.1)
            )
        if draw < 0.79:
            return self.report(EventKind.MARGIN_CALLED, reference=int(rng.integers(0, 40_000)))
        return self.fate()

    def take(self, actions: Any) -> None:
        for action in actions:
            if isinstance(action, PlaceOrder):
                price = action.price_ticks or int(self.mids[action.instrument])
                self.working[action.order_id] = [action.instrument, action.side, price, action.quantity_lots]
            elif isinstance(action, Wake):
                self.wakes.append(action)
            elif isinstance(action, Request):
                self.requests.append(action)
            elif isinstance(action, CancelOrder):
                pass  # a fate will come


def drive(made: Strategy, rng: np.random.Generator, steps: int) -> Iterator[Action]:
    """Every action of so many events."""
    world = _World(made, rng)
    for number in range(steps):
        event = world.notice(EventKind.SESSION_OPENED, -1) if number == 0 else world.event()
        if event is None:
            continue
        actions = list(made.handle(event, world.now))
        world.take(actions)
        yield from actions
