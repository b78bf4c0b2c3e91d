"""Margin accounts, the liquidation engine and the oracles of docs/money.md, for `tests.oracle`.

Written from the document alone. Everything that can be is worked out afresh: equity, margins, ranks, how many accounts
are being liquidated. Values are Python integers, so nothing here can overflow; what the document says about halving
before a product is done because it changes the result, not because it must.
"""

from typing import TYPE_CHECKING

from exchange.config import MAX_HISTORY
from exchange.types import (
    MAX_CASH,
    MAX_QUANTITY_LOTS,
    EventKind,
    MarginState,
    OrderType,
    Phase,
    Reason,
    Side,
    SystemAccount,
)
from tests.oracle_records import (
    BPS,
    NEVER,
    NOBODY,
    Account,
    Command,
    Instrument,
    Order,
    PriceInForce,
)

if TYPE_CHECKING:
    from tests.oracle import Oracle

MILLION = 10**6
MOST_PPM = 2**30
MAX_MARGIN_LOTS = 2**32
MOST_DELEVERAGED = 8
ACTIVE = (Phase.CONTINUOUS, Phase.AUCTION, Phase.BATCH, Phase.HALTED)


def share(amount: int, bps: int) -> int:
    """docs/money.md, *share*."""
    assert amount >= 0
    return amount // BPS * bps + amount % BPS * bps // BPS


def ceil_div(dividend: int, divisor: int) -> int:
    return -((-dividend) // divisor)


def ppm(part: int, whole: int) -> int:
    """Parts per million, at most 2^30."""
    if whole <= 0:
        return MOST_PPM
    while part >= 2**42 or whole >= 2**42:
        part, whole = part // 2, whole // 2
    return min(part * MILLION // max(whole, 1), MOST_PPM)


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


class Margin:
    def __init__(self, oracle: "Oracle") -> None:
        self.oracle = oracle
        self.settings = oracle.config.margin
        self.revalue_ns = NEVER
        self.revalue_account = 0
        self.swept_lots = 0
        """What was traded through the book without an order of anybody's."""
        self.bad_debt = 0
        """Cash that DEFICIT bore."""
        self.revaluations = 0

    @property
    def fund_account(self) -> int:
        return self.oracle.participants + SystemAccount.INSURANCE_FUND

    @property
    def fund(self) -> Account:
        return self.oracle.accounts[self.fund_account]

    def liquidating(self) -> int:
        return sum(account.margin_state == MarginState.LIQUIDATING for account in self.oracle.accounts)

    # Prices and values

    def mark_ticks(self, number: int) -> int:
        instrument = self.oracle.instruments[number]
        if self.settings is None:
            return 0
        if self.settings.mark == "last":
            return instrument.last_ticks or instrument.index_ticks
        if self.settings.mark == "mid":
            return instrument.book_ticks()
        assert self.settings.mark == "index"
        return instrument.index_ticks

    def mark_value(self, number: int, lots: int) -> int:
        return self.oracle.instruments[number].notional(self.mark_ticks(number), lots)

    def equity(self, account: Account) -> int:
        held = enumerate(account.positions)
        return account.cash + sum(self.mark_value(number, position.quantity_lots) for number, position in held)

    def maintenance(self, account: Account) -> int:
        return sum(
            share(
                self.mark_value(number, abs(position.quantity_lots)),
                self.oracle.instruments[number].settings.maintenance_margin_bps,
            )
            for number, position in enumerate(account.positions)
        )

    def initial_of(self, lots: list[int]) -> int:
        """Initial margin of so many lots, one number (≥ 0) an instrument."""
        return sum(
            share(self.mark_value(number, each), self.oracle.instruments[number].settings.initial_margin_bps)
            for number, each in enumerate(lots)
        )

    def initial(self, account: Account) -> int:
        return self.initial_of([abs(position.quantity_lots) for position in account.positions])

    def bankruptcy_ticks(self, account: Account, number: int) -> int:
        """The price at which the account's equity is 0."""
        instrument = self.oracle.instruments[number]
        lots = account.positions[number].quantity_lots
        rest = self.equity(account) - self.mark_value(number, lots)
        multiplier = instrument.settings.multiplier
        if lots > 0:
            price_ticks = ceil_div(-rest, lots * multiplier)
        else:
            price_ticks = rest // (-lots * multiplier)
        return min(max(price_ticks, 1), instrument.settings.price_levels - 1)

    def rank(self, account: Account, number: int) -> int:
        """Who is deleveraged first: profit times leverage (docs/money.md)."""
        position = account.positions[number]
        value = self.mark_value(number, abs(position.quantity_lots))
        pnl = self.mark_value(number, position.quantity_lots) - position.entry_value
        equity = self.equity(account)
        profit = ppm(abs(pnl), abs(position.entry_value))
        leverage = MOST_PPM if equity <= 0 else ppm(value, equity)
        if pnl > 0:
            return profit * leverage // MILLION
        return -(profit * MILLION // max(leverage, 1))

    # Positions

    def move(self, number: int, instrument: int, lots: int, value: int) -> None:
        """A trade of |lots| (bought if positive) worth `value` changes a position and, on margin, what it cost."""
        account = self.oracle.accounts[number]
        position = account.positions[instrument]
        before, after = position.quantity_lots, position.quantity_lots + lots
        position.quantity_lots = after
        if not account.margin:
            return
        if before == 0 or sign(before) == sign(lots):
            position.entry_value += sign(lots) * value
        elif abs(lots) <= abs(before):
            cost, count = abs(position.entry_value), abs(lots)
            part = cost // abs(before) * count + cost % abs(before) * count // abs(before)
            position.entry_value -= sign(position.entry_value) * part
            if after == 0:
                position.entry_value = 0
        else:
            # value = price × |lots| × multiplier, so this is exact.
            position.entry_value = sign(after) * (value // abs(lots) * abs(after))

    def _exchange(self, number: int, other: int, instrument: int, lots: int, price_ticks: int) -> None:
        """`number` gives lots (takes, if negative) to `other` for cash, without the book."""
        value = self.oracle.instruments[instrument].notional(price_ticks, abs(lots))
        self.oracle.accounts[number].cash += sign(lots) * value
        self.oracle.accounts[other].cash -= sign(lots) * value
        self.move(number, instrument, -lots, value)
        self.move(other, instrument, lots, value)

    # Orders

    def _exposure(self, number: int) -> list[int]:
        """e_j of every instrument: the larger of what the account would hold if its bids, or its asks, all filled."""
        result = []
        for each, position in enumerate(self.oracle.accounts[number].positions):
            lots, buying_lots = position.quantity_lots, self.oracle.buying_lots(number, each)
            result.append(max(abs(lots + buying_lots), abs(lots - position.reserved_lots)))
        return result

    def order_refusal(self, c: Command, side: int, lots: int, gone_lots: int) -> Reason:
        """Check 10 on margin. gone_lots: leaves of the order being replaced, which is of this side."""
        instrument, account = self.oracle.instruments[c.instrument], self.oracle.accounts[c.account]
        if account.margin_state == MarginState.LIQUIDATING:
            return Reason.IN_LIQUIDATION
        position = account.positions[c.instrument]
        buying_lots = self.oracle.buying_lots(c.account, c.instrument)
        reserved_lots = position.reserved_lots
        if side == Side.BUY:
            buying_lots -= gone_lots
        else:
            reserved_lots -= gone_lots
        held_lots = position.quantity_lots
        if (held_lots > 0 and side == Side.SELL and lots + reserved_lots <= held_lots) or (
            held_lots < 0 and side == Side.BUY and lots + buying_lots <= -held_lots
        ):
            return Reason.NONE
        if abs(held_lots) + buying_lots + reserved_lots + lots > MAX_MARGIN_LOTS:
            return Reason.POSITION_LIMIT
        mark_ticks = self.mark_ticks(c.instrument)
        price_ticks = c.price_ticks
        if c.order_type == OrderType.MARKET:
            price_ticks = instrument.best_ticks(1 - side) or mark_ticks
        loss = max(0, price_ticks - mark_ticks if side == Side.BUY else mark_ticks - price_ticks)
        if side == Side.BUY:
            buying_lots += lots
        else:
            reserved_lots += lots
        exposure = self._exposure(c.account)
        exposure[c.instrument] = max(abs(held_lots + buying_lots), abs(held_lots - reserved_lots))
        if self.equity(account) - instrument.notional(loss, lots) < self.initial_of(exposure):
            return Reason.INSUFFICIENT_MARGIN
        return Reason.NONE

    # The operator

    def set_margin(self, c: Command) -> None:
        reason = self._set_margin_refusal(c)
        if reason != Reason.NONE:
            self.oracle.reject_operator(c, reason)
            return
        account = self.oracle.accounts[c.account]
        account.margin, account.margin_state = c.quantity_lots, MarginState.NORMAL
        for position in account.positions:
            position.entry_value = 0
        self.oracle.emit(c, EventKind.MARGIN_SET, account=c.account, value=c.quantity_lots)

    def _set_margin_refusal(self, c: Command) -> Reason:
        if not self.oracle.account_exists(c.account):
            return Reason.UNKNOWN_ACCOUNT
        if self.settings is None:
            return Reason.NO_SUCH_FACILITY
        account = self.oracle.accounts[c.account]
        if (
            c.quantity_lots not in (0, 1)
            or self.oracle.resting_of(c.account)
            or any(position.quantity_lots for position in account.positions)
            or account.cash < 0
            or account.collateral_lots
            or account.debt_lots
        ):
            return Reason.AMOUNT_OUT_OF_RANGE
        return Reason.NONE

    def withdraw_cash(self, c: Command) -> None:
        reason = self._withdraw_refusal(c)
        if reason != Reason.NONE:
            self.oracle.reject_operator(c, reason)
            return
        self.oracle.accounts[c.account].cash -= c.quantity_lots
        self.oracle.cash_deposited -= c.quantity_lots
        self.oracle.emit(c, EventKind.CASH_WITHDRAWN, account=c.account, quantity_lots=c.quantity_lots)

    def _withdraw_refusal(self, c: Command) -> Reason:
        if not self.oracle.account_exists(c.account):
            return Reason.UNKNOWN_ACCOUNT
        amount = c.quantity_lots
        if not 1 <= amount <= MAX_CASH or self.oracle.cash_deposited - amount < -MAX_CASH:
            return Reason.AMOUNT_OUT_OF_RANGE
        account = self.oracle.accounts[c.account]
        if not account.margin:
            return Reason.NONE if account.free_cash >= amount else Reason.INSUFFICIENT_CASH
        enough = self.equity(account) - amount >= self.initial_of(self._exposure(c.account))
        return Reason.NONE if enough else Reason.INSUFFICIENT_MARGIN

    # Revaluation

    def _revalues(self) -> bool:
        return self.settings is not None or any(each.settings.oracle for each in self.oracle.instruments)

    def arm_after_command(self, c: Command) -> None:
        if self._revalues() and any(each.phase in ACTIVE for each in self.oracle.instruments):
            self.revalue_ns = min(self.revalue_ns, c.received_ns + self.oracle.config.revalue_interval_ns)

    def revalue(self, c: Command) -> None:
        if c.received_ns < self.revalue_ns:
            self.oracle.emit(
                c,
                EventKind.ORDER_REJECTED,
                instrument=c.instrument,
                account=NOBODY,
                reason=Reason.TIMER_NOT_DUE,
            )
            return
        self.revaluations += 1
        self.revalue_ns = NEVER
        for number, instrument in enumerate(self.oracle.instruments):
            if instrument.settings.oracle is not None:
                self._ask_oracle(c, number, instrument)
        stopped = False
        if self.settings is not None:
            stopped = self._revalue_accounts(c)
            self._sell_inventory(c)
        self._arm_again(c, stopped)

    def _ask_oracle(self, c: Command, number: int, instrument: Instrument) -> None:
        settings = instrument.settings.oracle
        assert settings is not None
        now_ns, price_ticks = c.received_ns, instrument.book_ticks()
        if settings.source == "delayed":
            if not instrument.history or instrument.history[-1].price_ticks != price_ticks:
                instrument.history.append(PriceInForce(now_ns, price_ticks))
                del instrument.history[:-MAX_HISTORY]
            old = [each for each in instrument.history if each.since_ns <= now_ns - settings.delay_ns]
            if old:
                del instrument.history[: len(old) - 1]
            price_ticks = instrument.history[0].price_ticks
        elif settings.source == "other_venue":
            price_ticks = instrument.index_ticks
        before_ticks = instrument.oracle_ticks
        moved_ticks = abs(price_ticks - before_ticks)
        speaks = (
            before_ticks == 0
            or (moved_ticks > 0 and moved_ticks * BPS >= settings.deviation_bps * before_ticks)
            or (settings.heartbeat_ns > 0 and now_ns - instrument.oracle_ns >= settings.heartbeat_ns)
        )
        if price_ticks > 0 and speaks:
            instrument.oracle_ticks, instrument.oracle_ns = price_ticks, now_ns
            self.oracle.emit(
                c,
                EventKind.ORACLE_UPDATED,
                instrument=number,
                account=NOBODY,
                price_ticks=price_ticks,
                value=before_ticks,
            )

    def _revalue_accounts(self, c: Command) -> bool:
        """Return whether it was stopped before it had looked at all."""
        assert self.settings is not None
        count, first, acted_on = self.oracle.participants, self.revalue_account, 0
        for number in [*range(first, count), *range(first)]:
            if not self.oracle.accounts[number].margin:
                continue
            if acted_on >= self.settings.accounts_per_revaluation:
                self.revalue_account = number
                return True
            before = self.oracle.event_count()
            self._look_at(c, number)
            acted_on += self.oracle.event_count() > before
        self.revalue_account = 0
        return False

    def _look_at(self, c: Command, number: int) -> None:
        assert self.settings is not None
        account = self.oracle.accounts[number]
        equity, maintenance = self.equity(account), self.maintenance(account)
        call_level = share(maintenance, self.settings.call_bps)
        if account.margin_state == MarginState.LIQUIDATING:
            self._step(c, number)
        elif equity < maintenance:
            self.oracle.emit(c, EventKind.LIQUIDATION_STARTED, account=number, value=equity, threshold=maintenance)
            account.margin_state = MarginState.LIQUIDATING
            for order in self.oracle.resting_of(number):
                self.oracle.cancel_resting(c, order, order.leaves_lots, Reason.LIQUIDATED)
            self._step(c, number)
        elif equity < call_level:
            if account.margin_state == MarginState.NORMAL:
                account.margin_state = MarginState.CALLED
                self.oracle.emit(c, EventKind.MARGIN_CALLED, account=number, value=equity, threshold=call_level)
        elif account.margin_state == MarginState.CALLED and equity >= self.initial(account):
            account.margin_state = MarginState.NORMAL

    def _sell_inventory(self, c: Command) -> None:
        for number, instrument in enumerate(self.oracle.instruments):
            lots = self.fund.positions[number].quantity_lots
            if instrument.phase == Phase.CONTINUOUS and lots:
                side = Side.SELL if lots > 0 else Side.BUY
                wanted_lots = min(abs(lots), self._slice_lots())
                self._sweep(c, self.fund_account, number, side, wanted_lots, None, Reason.FUND_SALE)

    def _arm_again(self, c: Command, stopped: bool) -> None:
        config, instruments = self.oracle.config, self.oracle.instruments
        continuous = [number for number, each in enumerate(instruments) if each.phase == Phase.CONTINUOUS]
        soon_ns = c.received_ns + config.revalue_interval_ns
        inventory = self.settings is not None and any(self.fund.positions[each].quantity_lots for each in continuous)
        if continuous and (self.liquidating() or inventory or stopped):
            self.revalue_ns = soon_ns
            return
        heartbeats = [
            each.oracle_ns + each.settings.oracle.heartbeat_ns
            for each in instruments
            if each.settings.oracle is not None and each.settings.oracle.heartbeat_ns
        ]
        if heartbeats and any(each.phase in ACTIVE for each in instruments):
            self.revalue_ns = max(min(heartbeats), soon_ns)

    # Liquidation

    def _slice_lots(self) -> int:
        assert self.settings is not None
        return self.settings.slice_lots or MAX_QUANTITY_LOTS

    def _sweep(
        self, c: Command, number: int, instrument_number: int, side: int, lots: int, limit: int | None, reason: Reason
    ) -> tuple[int, int, bool]:
        """Trade against the book, as an IOC would. limit None: at any price.

        Returns: lots that are left, the value that was traded, whether the breaker tripped.
        """
        instrument = self.oracle.instruments[instrument_number]
        limit_ticks = limit or (1 if side == Side.SELL else instrument.settings.price_levels - 1)
        taker = Order(number, 0, instrument_number, side, limit_ticks, lots, leaves_lots=lots)
        traded_value, breaker = 0, self.oracle.breaker
        while taker.leaves_lots > 0:
            price_ticks = instrument.best_ticks(1 - side)
            if price_ticks is None:
                break
            if price_ticks < limit_ticks if side == Side.SELL else price_ticks > limit_ticks:
                break
            maker = instrument.queues[1 - side][price_ticks][0]
            assert maker.account != number
            quantity_lots = min(taker.leaves_lots, maker.leaves_lots)
            trip = breaker.match_trips(c, instrument_number, side, price_ticks, quantity_lots)
            if trip is None and reason == Reason.LIQUIDATION:
                value = instrument.notional(price_ticks, quantity_lots)
                trip = breaker.liquidated_trips(c, instrument_number, value)
            if trip is not None:
                breaker.act(c, instrument_number, trip, price_ticks, quantity_lots, taker)
                return taker.leaves_lots, traded_value, True
            buy, sell = (taker, maker) if side == Side.BUY else (maker, taker)
            self.oracle.trade(buy, sell, price_ticks, quantity_lots)
            self.oracle.take_from_book(maker, quantity_lots)
            taker.leaves_lots -= quantity_lots
            self.swept_lots += quantity_lots
            traded_value += instrument.notional(price_ticks, quantity_lots)
            breaker.matched(c, instrument_number, side, price_ticks, quantity_lots)
            self.oracle.emit_fill(c, taker, maker, price_ticks, quantity_lots, reason, value=limit_ticks)
        return taker.leaves_lots, traded_value, False

    def _step(self, c: Command, number: int) -> None:
        """Take one step in the liquidation of an account."""
        account = self.oracle.accounts[number]
        for each, instrument in enumerate(self.oracle.instruments):
            if account.positions[each].quantity_lots == 0 or instrument.phase != Phase.CONTINUOUS:
                continue
            if self.equity(account) >= self.initial(account):
                break
            if self._liquidate(c, number, each):
                break
        if not any(position.quantity_lots for position in account.positions):
            self._cover_deficit(c, number)
        elif self.equity(account) < self.initial(account):
            return
        account.margin_state = MarginState.NORMAL
        self.oracle.emit(c, EventKind.LIQUIDATION_ENDED, account=number, value=account.cash)

    def _liquidate(self, c: Command, number: int, instrument: int) -> bool:
        """One account in one instrument. Return whether the breaker tripped."""
        assert self.settings is not None
        account = self.oracle.accounts[number]
        held_lots = account.positions[instrument].quantity_lots
        side = Side.SELL if held_lots > 0 else Side.BUY
        wanted_lots = min(abs(held_lots), self._slice_lots())
        limit_ticks = self.bankruptcy_ticks(account, instrument)
        if (trip := self.oracle.breaker.liquidation_trips(c, instrument)) is not None:
            taker = Order(number, 0, instrument, side, limit_ticks, wanted_lots, leaves_lots=wanted_lots)
            self.oracle.breaker.act(c, instrument, trip, limit_ticks, 0, taker)
            return True
        left_lots, value, tripped = self._sweep(
            c, number, instrument, side, wanted_lots, limit_ticks, Reason.LIQUIDATION
        )
        fee = min(share(value, self.settings.fee_bps), max(0, self.equity(account)))
        if fee:
            account.cash -= fee
            self.fund.cash += fee
            self.oracle.emit(
                c,
                EventKind.FEE_CHARGED,
                instrument=instrument,
                account=number,
                maker_account=self.fund_account,
                value=fee,
            )
        if tripped:
            return True
        if left_lots == 0:
            return False
        signed_lots = sign(held_lots) * left_lots
        if self._fund_can_take(instrument, signed_lots, limit_ticks):
            self._exchange(number, self.fund_account, instrument, signed_lots, limit_ticks)
            self.oracle.emit(
                c,
                EventKind.POSITION_TAKEN_OVER,
                instrument=instrument,
                account=number,
                side=side,
                price_ticks=limit_ticks,
                quantity_lots=left_lots,
                maker_account=self.fund_account,
            )
            return False
        left_lots = self._deleverage(c, number, instrument, side, left_lots, limit_ticks)
        if left_lots == 0:
            return False
        _, _, tripped = self._sweep(c, number, instrument, side, left_lots, None, Reason.LIQUIDATION)
        return tripped

    def _fund_can_take(self, instrument: int, signed_lots: int, price_ticks: int) -> bool:
        fund = self.fund
        if fund.cash <= 0:
            return False
        paid = self.oracle.instruments[instrument].notional(price_ticks, signed_lots)
        lots = [position.quantity_lots for position in fund.positions]
        lots[instrument] += signed_lots
        equity = fund.cash - paid + sum(self.mark_value(number, each) for number, each in enumerate(lots))
        return equity >= self.initial_of([abs(each) for each in lots])

    def _deleverage(self, c: Command, number: int, instrument: int, side: int, left_lots: int, price_ticks: int) -> int:
        """Close against the others by rank. Return what is left."""
        wanted = -1 if side == Side.SELL else 1
        for _ in range(MOST_DELEVERAGED):
            ranks = [
                (-self.rank(other, instrument), other_number)
                for other_number, other in enumerate(self.oracle.accounts[: self.oracle.participants])
                if other.margin
                and other.margin_state != MarginState.LIQUIDATING
                and sign(other.positions[instrument].quantity_lots) == wanted
            ]
            if left_lots == 0 or not ranks:
                break
            minus_rank, other_number = min(ranks)
            other_lots = abs(self.oracle.accounts[other_number].positions[instrument].quantity_lots)
            quantity_lots = min(left_lots, other_lots)
            self._exchange(number, other_number, instrument, -wanted * quantity_lots, price_ticks)
            left_lots -= quantity_lots
            self.oracle.emit(
                c,
                EventKind.DELEVERAGED,
                instrument=instrument,
                account=number,
                side=side,
                price_ticks=price_ticks,
                quantity_lots=quantity_lots,
                maker_account=other_number,
                reason=Reason.LIQUIDATION,
                value=-minus_rank,
            )
        return left_lots

    def _cover_deficit(self, c: Command, number: int) -> None:
        account = self.oracle.accounts[number]
        deficit = -account.cash
        if deficit <= 0:
            return
        paid = min(deficit, max(0, self.fund.cash))
        self.fund.cash -= paid
        self.oracle.accounts[self.oracle.participants + SystemAccount.DEFICIT].cash -= deficit - paid
        account.cash = 0
        self.bad_debt += deficit - paid
        self.oracle.emit(c, EventKind.BAD_DEBT_BOOKED, account=number, value=deficit - paid, threshold=paid)

    # Invariants

    def check_invariants(self) -> None:
        accounts = self.oracle.accounts
        for number, account in enumerate(accounts):
            if not account.margin:
                assert account.margin_state == MarginState.NORMAL
                assert not any(position.entry_value for position in account.positions), account
            assert not account.margin or self.settings is not None
            assert not account.margin or number < self.oracle.participants, "one of the venue's own is on margin"
            if account.margin_state == MarginState.LIQUIDATING:
                assert not self.oracle.resting_of(number), "an account in liquidation has an order in the book"
        if self.oracle.config.system_accounts:
            deficit = accounts[self.oracle.participants + SystemAccount.DEFICIT]
            assert deficit.cash == self.oracle.deposited_to_deficit - self.bad_debt
            for number in range(self.oracle.participants, len(accounts)):
                assert not self.oracle.resting_of(number), "one of the venue's own has an order in the book"
        if not self._revalues():
            assert self.revalue_ns == NEVER
        elif not any(each.phase in ACTIVE for each in self.oracle.instruments):
            assert self.revalue_ns == NEVER, "a closed venue revalues"
        for instrument in self.oracle.instruments:
            assert len(instrument.history) <= MAX_HISTORY
