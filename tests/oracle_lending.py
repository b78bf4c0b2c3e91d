"""The lending pool and the stablecoin of docs/money.md, for `tests.oracle`. Written from the document alone."""

from typing import TYPE_CHECKING

from exchange.types import MAX_QUANTITY_LOTS, CommandKind, EventKind, Phase, Reason, SystemAccount
from tests.oracle_margin import ceil_div, ppm, share
from tests.oracle_records import BPS, Account, Command

if TYPE_CHECKING:
    from tests.oracle import Oracle

SECOND_NS = 10**9
COIN_COMMANDS = (CommandKind.REDEEM, CommandKind.MINT)


class Lending:
    def __init__(self, oracle: "Oracle") -> None:
        self.oracle = oracle
        self.settings = oracle.config.lending
        self.coin = oracle.config.stablecoin
        self.written_off_lots = 0
        self.redemption_ns = 0

    @property
    def pool(self) -> Account:
        return self.oracle.accounts[self.oracle.participants + SystemAccount.LENDING_POOL]

    @property
    def issuer(self) -> Account:
        return self.oracle.accounts[self.oracle.participants + SystemAccount.ISSUER]

    # Values of a loan

    def collateral_price(self) -> int:
        assert self.settings is not None
        return self._oracle_price(self.settings.collateral_instrument)

    def debt_price(self) -> int:
        assert self.settings is not None
        number = self.settings.debt_instrument
        if self.settings.debt_at_par:
            assert self.coin is not None
            return self.coin.par_ticks * self.oracle.instruments[number].settings.multiplier
        return self._oracle_price(number)

    def _oracle_price(self, number: int) -> int:
        instrument = self.oracle.instruments[number]
        return instrument.oracle_ticks * instrument.settings.multiplier

    def threshold_value(self, collateral_lots: int) -> int:
        assert self.settings is not None
        return share(collateral_lots * self.collateral_price(), self.settings.liquidation_threshold_bps)

    def borrowing_limit(self, collateral_lots: int) -> int:
        assert self.settings is not None
        return share(collateral_lots * self.collateral_price(), self.settings.max_ltv_bps)

    def debt_value(self, debt_lots: int) -> int:
        return debt_lots * self.debt_price()

    def is_liquidatable(self, account: Account) -> bool:
        return self.debt_value(account.debt_lots) > self.threshold_value(account.collateral_lots)

    # Requests

    def request(self, c: Command) -> None:
        refusal = self._refusal(c)
        if refusal == Reason.NONE:
            refusal = {
                CommandKind.DEPOSIT_COLLATERAL: self._deposit_collateral,
                CommandKind.WITHDRAW_COLLATERAL: self._withdraw_collateral,
                CommandKind.BORROW: self._borrow,
                CommandKind.REPAY: self._repay,
                CommandKind.LIQUIDATE: self._liquidate,
                CommandKind.REDEEM: self._redeem,
                CommandKind.MINT: self._mint,
            }[CommandKind(c.kind)](c)
        if refusal != Reason.NONE:
            self.oracle.emit(
                c,
                EventKind.REQUEST_REJECTED,
                account=c.account,
                order_id=c.target_order_id,
                quantity_lots=c.quantity_lots,
                reason=refusal,
                value=c.kind,
            )

    def _refusal(self, c: Command) -> Reason:
        """What is checked of every request."""
        if not self.oracle.account_exists(c.account):
            return Reason.UNKNOWN_ACCOUNT
        self.oracle.charge_message(c)
        if self.oracle.accounts[c.account].killed:
            return Reason.IS_KILLED
        of_coin = c.kind in COIN_COMMANDS
        if of_coin:
            number = self.coin.instrument if self.coin is not None else None
        else:
            number = self.settings.collateral_instrument if self.settings is not None else None
        if number is None:
            return Reason.NO_SUCH_FACILITY
        if self.oracle.instruments[number].phase == Phase.CLOSED:
            return Reason.CLOSED
        if self.oracle.accounts[c.account].margin and c.kind != CommandKind.REDEEM:
            return Reason.NOT_A_CASH_ACCOUNT
        if not 1 <= c.quantity_lots <= MAX_QUANTITY_LOTS:
            return Reason.QUANTITY_OUT_OF_RANGE
        return Reason.NONE

    def _free_lots(self, account: Account, instrument: int) -> int:
        position = account.positions[instrument]
        return position.quantity_lots - position.reserved_lots

    def _give(self, giver: Account, taker: Account, instrument: int, lots: int) -> None:
        giver.positions[instrument].quantity_lots -= lots
        taker.positions[instrument].quantity_lots += lots

    def _emit_collateral(self, c: Command, kind: EventKind) -> None:
        assert self.settings is not None
        left_lots = self.oracle.accounts[c.account].collateral_lots
        self.oracle.emit(
            c,
            kind,
            instrument=self.settings.collateral_instrument,
            account=c.account,
            quantity_lots=c.quantity_lots,
            leaves_lots=left_lots,
        )

    def _emit_debt(self, c: Command, kind: EventKind, quantity_lots: int) -> None:
        assert self.settings is not None
        left_lots = self.oracle.accounts[c.account].debt_lots
        self.oracle.emit(
            c,
            kind,
            instrument=self.settings.debt_instrument,
            account=c.account,
            quantity_lots=quantity_lots,
            leaves_lots=left_lots,
        )

    def _deposit_collateral(self, c: Command) -> Reason:
        assert self.settings is not None
        account, instrument = self.oracle.accounts[c.account], self.settings.collateral_instrument
        if self._free_lots(account, instrument) < c.quantity_lots:
            return Reason.INSUFFICIENT_POSITION
        self._give(account, self.pool, instrument, c.quantity_lots)
        account.collateral_lots += c.quantity_lots
        self._emit_collateral(c, EventKind.COLLATERAL_DEPOSITED)
        return Reason.NONE

    def _withdraw_collateral(self, c: Command) -> Reason:
        assert self.settings is not None
        account = self.oracle.accounts[c.account]
        left_lots = account.collateral_lots - c.quantity_lots
        if left_lots < 0:
            return Reason.INSUFFICIENT_COLLATERAL
        if account.debt_lots and self.debt_value(account.debt_lots) > self.borrowing_limit(left_lots):
            return Reason.INSUFFICIENT_COLLATERAL
        account.collateral_lots = left_lots
        self._give(self.pool, account, self.settings.collateral_instrument, c.quantity_lots)
        self._emit_collateral(c, EventKind.COLLATERAL_WITHDRAWN)
        return Reason.NONE

    def _borrow(self, c: Command) -> Reason:
        assert self.settings is not None
        account, instrument = self.oracle.accounts[c.account], self.settings.debt_instrument
        if self.pool.positions[instrument].quantity_lots < c.quantity_lots:
            return Reason.POOL_EXHAUSTED
        debt_lots = account.debt_lots + c.quantity_lots
        if self.debt_value(debt_lots) > self.borrowing_limit(account.collateral_lots):
            return Reason.INSUFFICIENT_COLLATERAL
        if self.collateral_price() == 0 or self.debt_price() == 0:
            return Reason.INSUFFICIENT_COLLATERAL
        account.debt_lots = debt_lots
        self._give(self.pool, account, instrument, c.quantity_lots)
        self._emit_debt(c, EventKind.BORROWED, c.quantity_lots)
        return Reason.NONE

    def _repay(self, c: Command) -> Reason:
        assert self.settings is not None
        account, instrument = self.oracle.accounts[c.account], self.settings.debt_instrument
        if account.debt_lots == 0:
            return Reason.NO_DEBT
        quantity_lots = min(c.quantity_lots, account.debt_lots)
        if self._free_lots(account, instrument) < quantity_lots:
            return Reason.INSUFFICIENT_POSITION
        account.debt_lots -= quantity_lots
        self._give(account, self.pool, instrument, quantity_lots)
        self._emit_debt(c, EventKind.REPAID, quantity_lots)
        return Reason.NONE

    def _liquidate(self, c: Command) -> Reason:
        assert self.settings is not None
        settings = self.settings
        target = c.target_order_id
        if not self.oracle.account_exists(target) or target == c.account:
            return Reason.UNKNOWN_LOAN
        sender, loan = self.oracle.accounts[c.account], self.oracle.accounts[target]
        if loan.debt_lots == 0:
            return Reason.UNKNOWN_LOAN
        collateral_price, debt_price = self.collateral_price(), self.debt_price()
        threshold = self.threshold_value(loan.collateral_lots)
        debt_value = self.debt_value(loan.debt_lots)
        if not (debt_value > threshold and collateral_price > 0 and debt_price > 0):
            return Reason.LOAN_HEALTHY
        most_lots = loan.debt_lots
        if threshold >= share(debt_value, settings.full_close_health_bps):
            most_lots = max(1, share(loan.debt_lots, settings.close_factor_bps))
        repaid_lots = min(c.quantity_lots, most_lots)
        value = repaid_lots * debt_price
        seized_lots = (value + share(value, settings.bonus_bps)) // collateral_price
        if seized_lots > loan.collateral_lots:
            seized_lots = loan.collateral_lots
            worth, divisor = loan.collateral_lots * collateral_price, BPS + settings.bonus_bps
            without_bonus = worth // divisor * BPS + worth % divisor * BPS // divisor
            repaid_lots = max(1, min(repaid_lots, ceil_div(without_bonus, debt_price)))
        if self._free_lots(sender, settings.debt_instrument) < repaid_lots:
            return Reason.INSUFFICIENT_POSITION
        self._give(sender, self.pool, settings.debt_instrument, repaid_lots)
        self._give(self.pool, sender, settings.collateral_instrument, seized_lots)
        loan.debt_lots -= repaid_lots
        loan.collateral_lots -= seized_lots
        self.oracle.emit(
            c,
            EventKind.LOAN_LIQUIDATED,
            instrument=settings.collateral_instrument,
            account=c.account,
            price_ticks=collateral_price,
            quantity_lots=repaid_lots,
            leaves_lots=seized_lots,
            maker_account=target,
            maker_leaves_lots=loan.debt_lots,
            value=ppm(threshold, debt_value),
            threshold=debt_price,
        )
        if loan.collateral_lots == 0 and loan.debt_lots > 0:
            self.oracle.emit(
                c,
                EventKind.BAD_DEBT_BOOKED,
                instrument=settings.debt_instrument,
                account=target,
                quantity_lots=loan.debt_lots,
                value=loan.debt_lots * debt_price,
            )
            self.written_off_lots += loan.debt_lots
            loan.debt_lots = 0
        return Reason.NONE

    # The stablecoin

    def par(self) -> int:
        """Of one lot."""
        assert self.coin is not None
        return self.oracle.instruments[self.coin.instrument].notional(self.coin.par_ticks, 1)

    def _redeem(self, c: Command) -> Reason:
        assert self.coin is not None
        account = self.oracle.accounts[c.account]
        amount = c.quantity_lots * self.par()
        if self._free_lots(account, self.coin.instrument) < c.quantity_lots:
            return Reason.INSUFFICIENT_POSITION
        if self.issuer.cash < amount:
            return Reason.RESERVES_EXHAUSTED
        if self.coin.redemption_lots_per_s:
            interval_ns = SECOND_NS // self.coin.redemption_lots_per_s
            busy_until_ns = max(self.redemption_ns, c.received_ns) + c.quantity_lots * interval_ns
            if busy_until_ns - c.received_ns > self.coin.redemption_burst_lots * interval_ns:
                return Reason.REDEMPTION_RATE
            self.redemption_ns = busy_until_ns
        account.cash += amount
        self.issuer.cash -= amount
        self._move_coins(c.account, -c.quantity_lots, amount)
        self._emit_coin(c, EventKind.REDEEMED)
        return Reason.NONE

    def _mint(self, c: Command) -> Reason:
        assert self.coin is not None
        account = self.oracle.accounts[c.account]
        amount = c.quantity_lots * self.par()
        if account.free_cash < amount:
            return Reason.INSUFFICIENT_CASH
        if self.issuer.positions[self.coin.instrument].quantity_lots < c.quantity_lots:
            return Reason.POOL_EXHAUSTED
        account.cash -= amount
        self.issuer.cash += amount
        self._move_coins(c.account, c.quantity_lots, amount)
        self._emit_coin(c, EventKind.MINTED)
        return Reason.NONE

    def _move_coins(self, number: int, lots: int, amount: int) -> None:
        assert self.coin is not None
        self.oracle.margin.move(number, self.coin.instrument, lots, amount)
        issuer = self.oracle.participants + SystemAccount.ISSUER
        self.oracle.margin.move(issuer, self.coin.instrument, -lots, amount)

    def _emit_coin(self, c: Command, kind: EventKind) -> None:
        assert self.coin is not None
        self.oracle.emit(
            c,
            kind,
            instrument=self.coin.instrument,
            account=c.account,
            price_ticks=self.coin.par_ticks,
            quantity_lots=c.quantity_lots,
            value=self.issuer.cash,
        )

    # Invariants

    def check_invariants(self) -> None:
        accounts = self.oracle.accounts
        for account in accounts:
            assert account.collateral_lots >= 0 and account.debt_lots >= 0
            assert account.debt_lots == 0 or account.collateral_lots > 0, "a debt without collateral is not written off"
            assert not account.margin or account.collateral_lots == account.debt_lots == 0
        collateral_lots = sum(account.collateral_lots for account in accounts)
        debt_lots = sum(account.debt_lots for account in accounts)
        if self.settings is None:
            assert collateral_lots == debt_lots == self.written_off_lots == 0
        else:
            own = self.oracle.deposited_to_pool
            collateral, debt = self.settings.collateral_instrument, self.settings.debt_instrument
            for number in range(len(self.oracle.instruments)):
                expected = own[number] + (collateral_lots if number == collateral else 0)
                expected -= debt_lots + self.written_off_lots if number == debt else 0
                assert self.pool.positions[number].quantity_lots == expected
            assert self.pool.positions[debt].quantity_lots >= 0
        if self.oracle.config.system_accounts:
            assert self.issuer.cash >= 0, "the stablecoin's reserves are below nothing"
            assert all(position.quantity_lots >= 0 for position in self.issuer.positions)
        assert self.coin is not None or self.redemption_ns == 0
