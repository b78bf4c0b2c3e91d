"""The breaker of docs/breaker.md, for `tests.oracle`. Written from the document alone.

What a window holds is worked out afresh from a list of all that happened since the windows were emptied. Prices are not
kept to 4,096 entries here: no session that is compared comes near that.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from exchange.config import BreakerConfig
from exchange.types import BreakerAction, EventKind, OrderType, Phase, Reason, Side, Trigger
from tests.oracle_records import BPS, NOBODY, Clearing, Command, Happened, Instrument, Order

if TYPE_CHECKING:
    from tests.oracle import Oracle

MOST_ENTRIES = 4096
OPEN = (Phase.CONTINUOUS, Phase.BATCH, Phase.AUCTION)
"""What can be halted."""


class Trip(NamedTuple):
    trigger: int
    observed: int
    threshold: int
    window_ns: int
    evidence: int
    """The sequence with which the oldest entry of the window began."""
    market_wide: bool = False


def within(window: Sequence[Happened], now_ns: int, window_ns: int) -> list[Happened]:
    return [each for each in window if each.time_ns > now_ns - window_ns]


def enter(window: list[Happened], c: Command, window_ns: int, amount: int) -> None:
    """At one time, or in a full window, the newest takes in what comes."""
    inside = within(window, c.received_ns, window_ns)
    if inside and (inside[-1].time_ns == c.received_ns or len(inside) == MOST_ENTRIES):
        window[-1] = Happened(c.received_ns, window[-1].amount + amount, window[-1].sequence)
    else:
        window.append(Happened(c.received_ns, amount, c.sequence))


def evidence_of(c: Command, window: Sequence[Happened]) -> int:
    return window[0].sequence if window else c.sequence


def price_move_trips(c: Command, instrument: Instrument, price_ticks: int) -> Trip | None:
    breaker, prices = instrument.settings.breaker, instrument.prices
    if not breaker.price_move_bps or not prices:
        return None
    # A price is in force until the next fill.
    in_force = [
        each
        for each, following in zip_longest(prices, prices[1:])
        if following is None or following.time_ns > c.received_ns - breaker.price_window_ns
    ]
    high, low = max(each.amount for each in in_force), min(each.amount for each in in_force)
    fall, rise = (high - price_ticks) * BPS, (price_ticks - low) * BPS
    if fall >= breaker.price_move_bps * high:
        extreme, observed = high, fall // high
    elif rise >= breaker.price_move_bps * low:
        extreme, observed = low, rise // low
    else:
        return None
    evidence = [each for each in in_force if each.amount == extreme][-1].sequence
    return Trip(Trigger.PRICE_MOVE, observed, breaker.price_move_bps, breaker.price_window_ns, evidence)


def sell_volume_trips(c: Command, instrument: Instrument, side: int, quantity_lots: int) -> Trip | None:
    breaker = instrument.settings.breaker
    if not breaker.sell_volume_lots or side != Side.SELL:
        return None
    sales = within(instrument.sales, c.received_ns, breaker.sell_window_ns)
    sold_lots = sum(each.amount for each in sales) + quantity_lots
    if sold_lots < breaker.sell_volume_lots:
        return None
    return Trip(Trigger.SELL_VOLUME, sold_lots, breaker.sell_volume_lots, breaker.sell_window_ns, evidence_of(c, sales))


def depth_trips(c: Command, instrument: Instrument, side: int, price_ticks: int, quantity_lots: int) -> Trip | None:
    breaker = instrument.settings.breaker
    if not breaker.depth_lots:
        return None
    worse = 1 if side == Side.BUY else -1
    reach_ticks = price_ticks * breaker.depth_bps // BPS
    near_lots = sum(
        order.leaves_lots
        for order in instrument.resting_of(1 - side)
        if worse * (order.price_ticks - price_ticks) <= reach_ticks
    )
    left_lots = near_lots - quantity_lots
    if left_lots >= breaker.depth_lots:
        return None
    return Trip(Trigger.DEPTH, left_lots, breaker.depth_lots, 0, c.sequence)


def imbalance_trips(c: Command, instrument: Instrument, side: int, quantity_lots: int) -> Trip | None:
    breaker = instrument.settings.breaker
    if not breaker.imbalance_bps:
        return None
    windows = [within(taken, c.received_ns, breaker.imbalance_window_ns) for taken in instrument.taken]
    lots = [sum(each.amount for each in window) for window in windows]
    lots[side] += quantity_lots
    difference_lots, sum_lots = abs(lots[0] - lots[1]), sum(lots)
    if sum_lots < breaker.imbalance_lots or difference_lots * BPS < breaker.imbalance_bps * sum_lots:
        return None
    heavier = Side.BUY if lots[Side.BUY] > lots[Side.SELL] else Side.SELL
    return Trip(
        Trigger.IMBALANCE,
        difference_lots * BPS // sum_lots,
        breaker.imbalance_bps,
        breaker.imbalance_window_ns,
        evidence_of(c, windows[heavier]),
    )


def armed_triggers(breaker: BreakerConfig) -> list[tuple[Trigger, int, int]]:
    """Trigger, threshold and window of each that is not off, by number."""
    every = [
        (Trigger.PRICE_MOVE, breaker.price_move_bps, breaker.price_window_ns),
        (Trigger.SELL_VOLUME, breaker.sell_volume_lots, breaker.sell_window_ns),
        (Trigger.LIQUIDATIONS, breaker.liquidations, breaker.liquidation_window_ns),
        (Trigger.LIQUIDATION_NOTIONAL, breaker.liquidation_notional, breaker.liquidation_window_ns),
        (Trigger.DEPTH, breaker.depth_lots, 0),
        (Trigger.IMBALANCE, breaker.imbalance_bps, breaker.imbalance_window_ns),
    ]
    return sorted(each for each in every if each[1])


class Breaker:
    """The breakers of the instruments and of the market, and the kill switch."""

    def __init__(self, oracle: "Oracle") -> None:
        self.oracle = oracle
        self.market = oracle.config.market_breaker
        self.liquidations: list[Happened] = []
        """Of the whole market: never emptied."""
        self.liquidated: list[Happened] = []

    # Before a match

    def match_trips(self, c: Command, number: int, side: int, price_ticks: int, quantity_lots: int) -> Trip | None:
        """Ask about one match of a taker of this side."""
        instrument = self.oracle.instruments[number]
        return (
            price_move_trips(c, instrument, price_ticks)
            or sell_volume_trips(c, instrument, side, quantity_lots)
            or depth_trips(c, instrument, side, price_ticks, quantity_lots)
            or imbalance_trips(c, instrument, side, quantity_lots)
        )

    def matched(self, c: Command, number: int, side: int, price_ticks: int, quantity_lots: int) -> None:
        instrument = self.oracle.instruments[number]
        instrument.prices.append(Happened(c.received_ns, price_ticks, c.sequence))
        breaker = instrument.settings.breaker
        enter(instrument.taken[side], c, breaker.imbalance_window_ns, quantity_lots)
        if side == Side.SELL:
            enter(instrument.sales, c, breaker.sell_window_ns, quantity_lots)

    def liquidation_trips(self, c: Command, number: int) -> Trip | None:
        """A liquidation takes up an instrument: ask, and take note of it if it may."""
        instrument = self.oracle.instruments[number]
        return self._liquidation_window_trips(
            c, Trigger.LIQUIDATIONS, "liquidations", 1, instrument, instrument.liquidations, self.liquidations
        )

    def liquidated_trips(self, c: Command, number: int, value: int) -> Trip | None:
        """A match for an account in liquidation: ask, and take note of it if it may."""
        instrument = self.oracle.instruments[number]
        return self._liquidation_window_trips(
            c,
            Trigger.LIQUIDATION_NOTIONAL,
            "liquidation_notional",
            value,
            instrument,
            instrument.liquidated,
            self.liquidated,
        )

    def _liquidation_window_trips(
        self,
        c: Command,
        trigger: Trigger,
        threshold_name: str,
        amount: int,
        instrument: Instrument,
        own: list[Happened],
        market: list[Happened],
    ) -> Trip | None:
        for breaker, happened in ((instrument.settings.breaker, own), (self.market, market)):
            threshold = getattr(breaker, threshold_name) if breaker is not None else 0
            if breaker is None or not threshold:
                continue
            window = within(happened, c.received_ns, breaker.liquidation_window_ns)
            observed = sum(each.amount for each in window) + amount
            if observed >= threshold:
                evidence, market_wide = evidence_of(c, window), breaker is self.market
                return Trip(trigger, observed, threshold, breaker.liquidation_window_ns, evidence, market_wide)
        for breaker, happened in ((instrument.settings.breaker, own), (self.market, market)):
            if breaker is not None:
                enter(happened, c, breaker.liquidation_window_ns, amount)
        return None

    # What happens

    def act(
        self, c: Command, number: int, trip: Trip, price_ticks: int, quantity_lots: int, taker: Order | None
    ) -> None:
        """Halt the instrument, and do what its action, or the market's, says beyond that."""
        instrument = self.oracle.instruments[number]
        own = BreakerAction[instrument.settings.breaker.action.upper()]
        halted = 1 + sum(each.phase == Phase.HALTED for each in self.oracle.instruments)
        whole = BreakerAction.HALT
        if self.market is not None and (trip.market_wide or 0 < self.market.halted_instruments <= halted):
            whole = BreakerAction[self.market.action.upper()]
        if trip.market_wide:
            self.liquidations.clear()
            self.liquidated.clear()
        kills = BreakerAction.HALT
        """kill_participant or kill_vendor, if somebody is killed whose match it was."""
        if own in (BreakerAction.KILL_PARTICIPANT, BreakerAction.KILL_VENDOR):
            # A batch and the insurance fund are nobody.
            is_somebody = taker is not None and self.oracle.account_exists(taker.account)
            if taker is not None and is_somebody and whole != BreakerAction.KILL_ALL:
                declared = self.oracle.accounts[taker.account].vendor != 0
                kills = own if declared else BreakerAction.KILL_PARTICIPANT
            own = BreakerAction.HALT
        action = kills or max(own, whole)
        self.halt(
            c,
            number,
            trip.trigger,
            account=taker.account if taker else NOBODY,
            order_id=taker.order_id if taker else 0,
            side=taker.side if taker else 0,
            price_ticks=price_ticks,
            quantity_lots=quantity_lots,
            leaves_lots=taker.leaves_lots if taker else 0,
            value=trip.observed,
            threshold=trip.threshold,
            window_ns=trip.window_ns,
            maker_order_id=trip.evidence,
            maker_leaves_lots=action,
        )
        if max(own, whole) != BreakerAction.HALT:
            for other, each in enumerate(self.oracle.instruments):
                if other != number and each.phase in OPEN:
                    self.halt(c, other, Trigger.MARKET, account=NOBODY, value=number)
        if kills == BreakerAction.KILL_PARTICIPANT and taker is not None:
            self.kill(c, [taker.account], trip.trigger, kills, taker.account)
        if kills == BreakerAction.KILL_VENDOR and taker is not None:
            vendor = self.oracle.accounts[taker.account].vendor
            self.kill(c, self.with_models_of(vendor), trip.trigger, kills, vendor)
        if action == BreakerAction.KILL_ALL:
            self.kill(c, self.everybody(), trip.trigger, BreakerAction.KILL_ALL, NOBODY)

    def halt(self, c: Command, number: int, trigger: int, **fields: int) -> None:
        instrument = self.oracle.instruments[number]
        instrument.trigger = trigger
        self.oracle.emit(c, EventKind.INSTRUMENT_HALTED, instrument=number, reason=trigger, **fields)
        self.oracle.begin_phase(c, number, Phase.HALTED, instrument.settings.breaker.halt_ns)

    def everybody(self) -> list[int]:
        return list(range(self.oracle.participants))

    def with_models_of(self, vendor: int) -> list[int]:
        return [number for number in self.everybody() if self.oracle.accounts[number].vendor == vendor]

    def kill(self, c: Command, concerned: list[int], trigger: int, action: BreakerAction, named: int) -> None:
        """Kill those who are concerned. named: the participant, the vendor, or NOBODY for all."""
        killed, cancelled = 0, 0
        for number in concerned:
            account = self.oracle.accounts[number]
            if account.killed:
                continue
            account.killed, account.logged_on = 1, 0
            killed += 1
            for order in self.oracle.resting_of(number):
                self.oracle.cancel_resting(c, order, order.leaves_lots, Reason.KILLED)
                cancelled += 1
        self.oracle.emit(
            c,
            EventKind.PARTICIPANTS_KILLED,
            account=named if action == BreakerAction.KILL_PARTICIPANT else NOBODY,
            quantity_lots=killed,
            maker_leaves_lots=action,
            reason=trigger,
            value=named,
            threshold=cancelled,
        )

    # A supervisor

    def supervisor_halts(self, c: Command) -> None:
        if c.instrument != NOBODY and not self.oracle.instrument_exists(c.instrument):
            self.oracle.reject_operator(c, Reason.UNKNOWN_INSTRUMENT)
            return
        named = range(len(self.oracle.instruments)) if c.instrument == NOBODY else [c.instrument]
        is_open = [number for number in named if self.oracle.instruments[number].phase in OPEN]
        if not is_open:
            self.oracle.reject_operator(c, Reason.HALTED)
        for number in is_open:
            self.halt(c, number, Trigger.SUPERVISOR, account=NOBODY, maker_order_id=c.quantity_lots)

    def supervisor_kills(self, c: Command) -> None:
        if c.account != NOBODY and not self.oracle.account_exists(c.account):
            self.oracle.reject_operator(c, Reason.UNKNOWN_ACCOUNT)
        elif c.account != NOBODY and self.oracle.accounts[c.account].killed:
            self.oracle.reject_operator(c, Reason.IS_KILLED)
        elif c.account == NOBODY:
            self.kill(c, self.everybody(), Trigger.SUPERVISOR, BreakerAction.KILL_ALL, NOBODY)
        else:
            self.kill(c, [c.account], Trigger.SUPERVISOR, BreakerAction.KILL_PARTICIPANT, c.account)

    def supervisor_kills_vendor(self, c: Command) -> None:
        concerned = self.with_models_of(c.account) if c.account > 0 else []
        if all(self.oracle.accounts[number].killed for number in concerned):
            self.oracle.reject_operator(c, Reason.UNKNOWN_ACCOUNT)
        else:
            self.kill(c, concerned, Trigger.SUPERVISOR, BreakerAction.KILL_VENDOR, c.account)

    # During a halt, and after it

    def takes_reducing(self, instrument: Instrument) -> bool:
        return instrument.phase == Phase.HALTED and instrument.settings.breaker.risk_reducing_while_halted

    def order_reduces(self, c: Command) -> bool:
        """Of a new order in a halt that takes only such."""
        position = self.oracle.accounts[c.account].positions[c.instrument]
        most_lots = position.quantity_lots - position.reserved_lots
        if c.side == Side.BUY:
            most_lots = -position.quantity_lots - self.oracle.buying_lots(c.account, c.instrument)
        return c.order_type == OrderType.LIMIT and c.quantity_lots <= most_lots

    def extends(self, c: Command, number: int, clearing: Clearing | None) -> bool:
        """Whether an auction that ends goes on instead, because it would clear outside its collar."""
        instrument = self.oracle.instruments[number]
        breaker, last_ticks = instrument.settings.breaker, instrument.last_ticks
        is_reopening = instrument.trigger != 0
        if not breaker.collar_bps or not is_reopening or not last_ticks or clearing is None:
            return False
        if instrument.extensions >= breaker.collar_extensions:
            return False
        if abs(clearing.price_ticks - last_ticks) * BPS <= self._collar_bps(instrument) * last_ticks:
            return False
        instrument.extensions += 1
        self.oracle.emit(
            c,
            EventKind.AUCTION_EXTENDED,
            instrument=number,
            account=NOBODY,
            price_ticks=clearing.price_ticks,
            value=self._collar_bps(instrument),
            threshold=last_ticks,
        )
        self.oracle.begin_phase(c, number, Phase.AUCTION, breaker.reopening_auction_ns)
        return True

    def _collar_bps(self, instrument: Instrument) -> int:
        breaker = instrument.settings.breaker
        return breaker.collar_bps + instrument.extensions * breaker.collar_widening_bps

    def auction_ended(self, c: Command, instrument: Instrument, clearing: Clearing | None) -> None:
        """The windows are emptied and the trigger forgotten; a price enters the price windows."""
        instrument.empty_windows()
        instrument.trigger, instrument.extensions = 0, 0
        if clearing is not None:
            instrument.prices.append(Happened(c.received_ns, clearing.price_ticks, c.sequence))

    def publish_thresholds(self, c: Command, number: int) -> None:
        breaker = self.oracle.instruments[number].settings.breaker
        if not breaker.publish_thresholds:
            return
        for trigger, threshold, window_ns in armed_triggers(breaker):
            self.oracle.emit(
                c,
                EventKind.THRESHOLD_PUBLISHED,
                instrument=number,
                account=NOBODY,
                reason=trigger,
                threshold=threshold,
                window_ns=window_ns,
            )
