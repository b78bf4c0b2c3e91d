"""Random venues and sessions that make the hard cases of docs/money.md likely; the rest is as in `tests.workload`.

Margin accounts begin with as much debt as they may have, and trade up to what they may, or one lot beyond. Someone
now and then pushes a price through the book, so that calls, liquidations, take-overs, deleveraging and bad debt come in
waves; loans are taken up to their limit, and liquidators come several at a time. A REVALUE that is due comes before the
next command, as in the venue's loop, almost always.
"""

from collections.abc import Callable

import numpy as np

from exchange.config import (
    MAX_MARGIN_PRICE,
    BreakerConfig,
    EngineConfig,
    InstrumentConfig,
    LendingConfig,
    LimitsConfig,
    MarginConfig,
    OracleConfig,
    StablecoinConfig,
)
from exchange.types import (
    MAX_CASH,
    MAX_QUANTITY_LOTS,
    REQUEST_COMMANDS,
    CommandKind,
    MarginState,
    OrderType,
    Side,
    SystemAccount,
)
from tests.oracle_margin import share
from tests.oracle_records import NEVER, NOBODY, Account, Command
from tests.workload import INT64_MAX, OUTSIDE, SECOND_NS, Day, Mix, operator_command, random_mix
from tests.workload_admission import random_admission
from tests.workload_breaker import Breakers

MS = 1_000_000
Planned = Command | Callable[[], Command]


def has_money(config: EngineConfig) -> bool:
    return config.system_accounts > 0 or any(each.oracle for each in config.instruments)


def random_money_case(seed: int) -> tuple[EngineConfig, Mix]:
    """A venue with some of: margin accounts, a lending pool, a stablecoin, oracles; and what kind of day it has."""
    rng = np.random.Generator(np.random.PCG64([seed, 3]))

    def one_of(*values: int) -> int:
        return int(rng.choice(values))

    def chance(share: float) -> bool:
        return bool(rng.random() < share)

    count = one_of(1, 2, 2, 3, 4)
    margin = MarginConfig(
        mark=str(rng.choice(["last", "mid", "index"])),  # type: ignore[arg-type]
        call_bps=one_of(10_000, 12_000, 15_000, 20_000, 30_000),
        fee_bps=one_of(0, 0, 10, 100, 1_000, 10_000),
        slice_lots=one_of(0, 0, 1, 5, 20, 200),
        accounts_per_revaluation=one_of(1, 2, 3, 64, 64),
    )
    has_margin, has_pool, has_coin = chance(0.75), count > 1 and chance(0.6), chance(0.5)
    if chance(0.03):
        has_margin = has_pool = has_coin = False
    armed = float(rng.choice([0.0, 0.0, 0.3, 0.6]))
    oracles = 1.0 if not (has_margin or has_pool or has_coin) else float(rng.choice([0.0, 0.5, 1.0]))
    interval_ns = one_of(MS, MS, 3 * MS)
    biggest = chance(0.08)
    breakers = Breakers(rng, count)
    watched = float(rng.choice([0.0, 0.0, 0.5, 1.0]))

    def breaker(batches: bool) -> BreakerConfig:
        price_move_bps = one_of(200, 500, 1_000, 2_000, 5_000) if chance(armed) else 0
        sell_volume_lots = one_of(10, 50, 200, 1_000) if not batches and chance(armed) else 0
        liquidations = {}
        if has_margin and chance(watched):
            liquidations = breakers.liquidation_triggers(margin, interval_ns)
        return breakers.next(
            batches=batches,
            windows_ns=(1, MS, 5 * MS),
            **liquidations,
            price_move_bps=price_move_bps,
            price_window_ns=one_of(1, MS, 5 * MS) if price_move_bps else 0,
            sell_volume_lots=sell_volume_lots,
            sell_window_ns=one_of(1, MS, 5 * MS) if sell_volume_lots else 0,
            halt_ns=one_of(1, MS, MS, 2 * MS, 10 * MS) if chance(0.9) else 0,
            reopening_auction_ns=one_of(1, MS, 3 * MS),
            cancels_while_halted=chance(0.5),
        )

    def oracle() -> OracleConfig:
        source = str(rng.choice(["own_book", "own_book", "other_venue", "delayed"]))
        return OracleConfig(
            source=source,  # type: ignore[arg-type]
            deviation_bps=one_of(0, 1, 50, 200, 1_000),
            heartbeat_ns=one_of(0, 0, 1, 2 * MS, 10 * MS),
            delay_ns=one_of(1, MS, 3 * MS, 20 * MS) if source == "delayed" else 0,
        )

    def instrument(needs_oracle: bool) -> InstrumentConfig:
        price_levels = one_of(64, 256, 1_024, 1_024, 4_096, 65_536)
        multiplier = one_of(1, 1, 1, 10, 16)
        initial_bps = one_of(500, 1_000, 1_000, 2_000, 5_000, 10_000)
        batches = not has_margin and chance(0.2)
        return InstrumentConfig(
            price_levels=price_levels,
            multiplier=min(multiplier, MAX_MARGIN_PRICE // price_levels),
            max_quantity_lots=MAX_QUANTITY_LOTS if biggest else one_of(20, 100, 1_000, 1_000, 100_000),
            batch_interval_ns=one_of(MS, 3 * MS) if batches else 0,
            opening_auction_ns=one_of(1, 2 * MS) if chance(0.2) else 0,
            breaker=breaker(batches),
            initial_margin_bps=initial_bps,
            maintenance_margin_bps=max(1, initial_bps * one_of(1, 5, 5, 9, 10) // 10),
            oracle=oracle() if needs_oracle or chance(oracles) else None,
        )

    coin = int(rng.integers(count))
    pair = rng.permutation(count)[:2].tolist() if has_pool else []
    if has_pool and has_coin and chance(0.7):
        coin = pair[1]
    at_par = has_pool and has_coin and coin == pair[1] and chance(0.5)
    instruments = tuple(instrument(number in pair) for number in range(count))
    ltv_bps = one_of(5_000, 8_000, 8_000, 9_500)
    limits = LimitsConfig()
    if chance(0.1):
        limits = LimitsConfig(order_lots=one_of(0, 100), position_lots=one_of(0, 500), messages_per_s=one_of(0, 50))
    accounts = one_of(3, 6, 8, 12, 20)
    config = EngineConfig(
        instruments=instruments,
        accounts=accounts,
        max_orders=one_of(10, 200, 1_000, 1_000),
        limits=limits,
        remembered_orders=one_of(1, 4, 32),
        revalue_interval_ns=interval_ns,
        market_breaker=breakers.market(0.45, margin if has_margin else None, interval_ns),
        margin=margin if has_margin else None,
        lending=LendingConfig(
            collateral_instrument=pair[0],
            debt_instrument=pair[1],
            max_ltv_bps=ltv_bps,
            liquidation_threshold_bps=min(10_000, ltv_bps + one_of(0, 250, 1_000)),
            close_factor_bps=one_of(1, 3_000, 5_000, 10_000),
            full_close_health_bps=one_of(0, 9_500, 9_500, 10_000),
            bonus_bps=one_of(0, 500, 500, 1_000, 5_000),
            debt_at_par=at_par,
        )
        if has_pool
        else None,
        stablecoin=StablecoinConfig(
            instrument=coin,
            par_ticks=one_of(1, 10, 50, instruments[coin].price_levels // 2),
            **_redemption(chance(0.7), one_of(50, 1_000, 3_000, 10**9), one_of(1, 5, 30)),
        )
        if has_coin
        else None,
        **random_admission(rng, instruments, accounts, (1, MS, 5 * MS, 50 * MS)),
    )
    mix = random_mix(rng)
    mix = Mix(**{**vars(mix), "standing_still": float(rng.choice([0.3, 0.6, 0.9])), "limit": 0.005, "operator": 0.01})
    return config, mix


def _redemption(limited: bool, lots_per_s: int, burst_lots: int) -> dict[str, int]:
    return {"redemption_lots_per_s": lots_per_s, "redemption_burst_lots": burst_lots} if limited else {}


class MoneyDay(Day):
    """A session in a venue whose money can run out."""

    def __init__(self, rng: np.random.Generator, config: EngineConfig, mix: Mix) -> None:
        super().__init__(rng, config, mix)
        interval_ns = config.revalue_interval_ns
        self.steps_ns += [interval_ns // 3, interval_ns - 1, interval_ns, interval_ns, interval_ns + 1]
        for each in self.instruments:
            if each.oracle:
                self.steps_ns += [each.oracle.delay_ns, each.oracle.heartbeat_ns]
        self.push_left = 0
        self.push_side = Side.SELL
        self.pushed = 0
        self.money_share = self._one_of([0.1, 0.25, 0.4])
        self.push_share = self._one_of([0.0, 0.01, 0.03, 0.06])
        self.margin_share = self._one_of([0.3, 0.6, 1.0])
        self.punctual = self._one_of([1.0, 1.0, 0.9, 0.5])

    # The beginning

    def _deposits(self) -> list[Planned]:
        commands: list[Planned] = [
            self._index(number, self.middle[number]) for number in range(len(self.instruments)) if self._chance(0.9)
        ]
        for account in range(self.accounts - 1):
            if self._chance(self.margin_share if self.config.margin else 0.05):
                commands += self._margin_account(account)
            else:
                commands += self._cash_account(account)
        if self.config.system_accounts:
            commands += self._system_deposits()
        return commands

    def _cash_account(self, account: int) -> list[Planned]:
        commands: list[Planned] = []
        for number, each in enumerate(self.instruments):
            lots = self.usual_lots[number] * self._between(1, 200)
            commands += self._cash(account, lots * self.middle[number] * each.multiplier)
            commands.append(self._lots(account, number, lots))
        return commands

    def _cash(self, account: int, amount: int) -> list[Planned]:
        """As much of it as this account may have."""
        amount = min(amount, (MAX_CASH - self.cash_deposited) // 64)
        return [self._deposit_cash(account, amount)] if amount > 0 else []

    def _lots(self, account: int, number: int, lots: int) -> Command:
        return operator_command(CommandKind.DEPOSIT_POSITION, account, number, max(1, min(lots, MAX_QUANTITY_LOTS)))

    def _margin_account(self, account: int) -> list[Planned]:
        commands: list[Planned] = [operator_command(CommandKind.SET_MARGIN, account, 0, 1)]
        number = self._between(0, len(self.instruments) - 1)
        lots = self.usual_lots[number] * self._between(1, 30)
        value = lots * self.middle[number] * self.instruments[number].multiplier
        if self._chance(0.6):
            commands.append(self._lots(account, number, lots))
        if self._chance(0.7):
            commands += self._cash(account, value // self._between(1, 10))
        if self._chance(0.5):
            commands.append(lambda: self._withdrawal(account))
        return commands

    def _system_deposits(self) -> list[Planned]:
        commands: list[Planned] = []
        worth = max(
            self.usual_lots[number] * self.middle[number] * each.multiplier
            for number, each in enumerate(self.instruments)
        )
        for system in SystemAccount:
            account = self.accounts + system
            if self._chance(0.75):
                commands += self._cash(account, worth * self._one_of([1, 3, 50]) // self._one_of([1, 5, 20]))
            for number in range(len(self.instruments)):
                if self._chance(0.9 if system in (SystemAccount.LENDING_POOL, SystemAccount.ISSUER) else 0.05):
                    commands.append(self._lots(account, number, self.usual_lots[number] * self._one_of([1, 50, 1_000])))
        return commands

    # Time

    def _stamped(self, command: Command, sequence: int) -> Command:
        stamped = super()._stamped(command, sequence)
        overdue = self.oracle.margin.revalue_ns <= self.now_ns and command.kind != CommandKind.REVALUE
        if overdue and self._chance(self.punctual):
            self.next.append(command)
            return super()._stamped(self._revalue(), sequence)
        return stamped

    def _revalue(self) -> Command:
        return operator_command(CommandKind.REVALUE, NOBODY, NOBODY)

    def _timer(self) -> Command | None:
        revalue_ns = self.oracle.margin.revalue_ns
        if self.now_ns < revalue_ns < NEVER and self._chance(0.03):
            self.now_ns = max(self.now_ns, revalue_ns + self._one_of([-1, 0, 0, 1]))
            return self._revalue()
        return super()._timer()

    # The day

    def _command(self) -> Command:
        if self.push_left:
            self.push_left -= 1
            return self._push()
        if self._chance(self.push_share):
            self.push_left, self.push_side = self._between(3, 25), Side(self._between(0, 1))
            self.pushed = self._between(0, len(self.instruments) - 1)
        if not self._chance(self.money_share):
            return super()._command()
        makers: list[Callable[[], Command]] = [self._some_index, self._some_withdrawal, self._odd]
        if self.config.margin:
            makers += [self._margin_order] * 8
        if self.config.lending:
            makers += [self._loan] * 5 + [self._race] * 3
        if self.config.stablecoin:
            makers += [self._coin] * 5
        command = self._one_of(makers)()
        return self._spoilt_request(command) if self._chance(self.mix.invalid) else command

    def _order(self) -> Command:
        order = super()._order()
        if self.oracle.accounts[order.account].margin and self._chance(0.7):
            # Those on margin have orders of their own, which fit their means better.
            account = self._living(self._one_of(self._cash_accounts()), self._cash_accounts())
            order = order._replace(account=account, order_id=self._next_id(account))
        return order

    def _push(self) -> Command:
        """Move a price: an order through the book, or news of another venue's price, or nobody quotes any more."""
        number, down = self.pushed, self.push_side == Side.SELL
        top = self.instruments[number].price_levels - 1
        factor = self._one_of([0.9, 0.95, 0.97]) if down else self._one_of([1.1, 1.05, 1.03])
        self.middle[number] = min(max(int(self.middle[number] * factor) + (not down), 1), top)
        if self._chance(0.15):
            return self._index(number, self.middle[number])
        if self._chance(0.1):
            resting = [order for order in self.oracle.orders if order.leaves_lots and order.instrument == number]
            if resting:
                account = self._one_of(resting).account
                return operator_command(CommandKind.MASS_CANCEL, account, number)._replace(side=1 - self.push_side)
        order = self._order()
        account = self._between(0, self.accounts - 2)
        return order._replace(
            account=account,
            order_id=self._next_id(account),
            instrument=number,
            side=self.push_side,
            order_type=OrderType.IOC if self._chance(0.7) else OrderType.LIMIT,
            price_ticks=self.middle[number],
            quantity_lots=self._between(1, min(self.usual_lots[number] * 3, self._most_lots(number))),
        )

    def _most_lots(self, number: int) -> int:
        return self.instruments[number].max_quantity_lots

    def _index(self, number: int, price_ticks: int) -> Command:
        return operator_command(CommandKind.PUBLISH_INDEX, 0, number, price_ticks)

    def _some_index(self) -> Command:
        number = self._between(0, len(self.instruments) - 1)
        self._drift(number)
        if self._chance(0.1):
            top = self.instruments[number].price_levels
            return self._index(number, self._one_of([0, 1, top - 1, top, *OUTSIDE]))
        return self._index(number, self.middle[number] + self._between(-1, 1))

    def _on_margin(self) -> list[int]:
        return [number for number, account in enumerate(self.oracle.accounts) if account.margin]

    def _withdrawal(self, account: int) -> Command:
        """What the account can just spare, or a little less or more."""
        oracle = self.oracle
        each = oracle.accounts[account]
        spare = each.free_cash
        if each.margin:
            spare = oracle.margin.equity(each) - oracle.margin.initial(each)
        amount = spare - self._one_of([0, 0, 0, -1, 1, spare // 4, spare // 2])
        return operator_command(CommandKind.WITHDRAW_CASH, account, 0, amount)

    def _some_withdrawal(self) -> Command:
        if self._chance(0.1):
            return operator_command(
                CommandKind.WITHDRAW_CASH, self._any_account(), 0, self._one_of([0, MAX_CASH, MAX_CASH + 1, *OUTSIDE])
            )
        return self._withdrawal(self._one_of(self._on_margin() or [self._any_account()]))

    def _margin_order(self) -> Command:
        """An order for all that an account may still buy or sell, or for one lot more, or to get out."""
        order = self._order()
        accounts = self._on_margin()
        if not accounts:
            return operator_command(CommandKind.SET_MARGIN, self._any_account(), 0, 1)
        account = self._living(self._one_of(accounts), accounts)
        each = self.oracle.accounts[account]
        if each.margin_state == MarginState.LIQUIDATING and self._chance(0.8):
            account = self._one_of(accounts)
            each = self.oracle.accounts[account]
        number, margin = order.instrument, self.oracle.margin
        held_lots = each.positions[number].quantity_lots
        value = margin.mark_value(number, 1)
        a_lot = max(1, share(value, self.instruments[number].initial_margin_bps))
        lots = (margin.equity(each) - margin.initial(each)) // a_lot
        side = order.side
        if held_lots and self._chance(0.3):
            side = Side.SELL if held_lots > 0 else Side.BUY
            lots = self._one_of([abs(held_lots), abs(held_lots) + 1, 2 * abs(held_lots) + max(lots, 0)])
        elif self._chance(0.3):
            lots //= self._between(2, 5)
        price_ticks = order.price_ticks
        if order.order_type != OrderType.MARKET:
            best_ticks = self.oracle.instruments[number].best_ticks(1 - side)
            price_ticks = best_ticks if best_ticks and self._chance(0.6) else self._price(number, side)
        return order._replace(
            account=account,
            order_id=self._next_id(account),
            side=side,
            price_ticks=price_ticks,
            quantity_lots=min(max(1, lots + self._between(-1, 1)), self._most_lots(number)),
        )

    def _odd(self) -> Command:
        """Commands that make little sense just now."""
        account = self._between(-1, self.accounts + len(SystemAccount))
        number = self._between(0, len(self.instruments) - 1)
        return self._one_of(
            [
                self._revalue(),
                operator_command(CommandKind.REVALUE, account, number, 3),
                operator_command(CommandKind.SET_MARGIN, account, number, self._one_of([0, 1, 1, 2, -1])),
                operator_command(CommandKind.SET_MARGIN, self._any_account(), number, self._one_of([0, 1])),
                operator_command(CommandKind.DEPOSIT_POSITION, account, number, self._between(1, 20)),
                self._deposit_cash(account, self._between(1, 1_000)),
                operator_command(CommandKind.WITHDRAW_CASH, account, number, self._between(1, 1_000)),
                operator_command(CommandKind.LOG_ON, account, NOBODY, 0),
                operator_command(CommandKind.SET_LIMIT, account, 1, 0),
                operator_command(CommandKind.CANCEL_ORDER, account, number),
                self._request(self._one_of(REQUEST_COMMANDS), self._any_account(), self._between(1, 5)),
            ]
        )

    # Loans and the coin

    def _request(self, kind: int, account: int, lots: int, target: int = 0) -> Command:
        lots = max(1, min(lots, MAX_QUANTITY_LOTS))
        return operator_command(kind, account, self._between(-1, 2), lots)._replace(target_order_id=target)

    def _cash_accounts(self) -> list[int]:
        return [each for each in range(self.accounts) if not self.oracle.accounts[each].margin] or [0]

    def _free_lots(self, account: Account, number: int) -> int:
        return account.positions[number].quantity_lots - account.positions[number].reserved_lots

    def _near(self, lots: int) -> int:
        """Exactly that, one more, or part of it."""
        return self._one_of([lots, lots, lots + 1, lots - 1, lots // 2, lots // 4, lots // 20])

    def _loan(self) -> Command:
        """One step of a borrower: the limits are met exactly, or missed by one lot."""
        lending, settings = self.oracle.lending, self.config.lending
        assert settings is not None
        number = self._one_of(self._cash_accounts()[:4])
        account = self.oracle.accounts[number]
        collateral, debt = settings.collateral_instrument, settings.debt_instrument
        limit = lending.borrowing_limit(account.collateral_lots)
        can_borrow = limit // max(1, lending.debt_price()) - account.debt_lots
        kinds = [*REQUEST_COMMANDS[:4]]
        if can_borrow > 0 and limit > 0:
            kinds += [CommandKind.BORROW] * 12
        elif not account.debt_lots:
            kinds += [CommandKind.DEPOSIT_COLLATERAL] * 12
        kind = self._one_of(kinds)
        pool_lots = lending.pool.positions[debt].quantity_lots
        per_lot = share(lending.collateral_price(), settings.max_ltv_bps)
        free_collateral = (limit - lending.debt_value(account.debt_lots)) // max(1, per_lot)
        lots = {
            CommandKind.DEPOSIT_COLLATERAL: self._free_lots(account, collateral),
            CommandKind.BORROW: min(can_borrow, pool_lots) if self._chance(0.9) else pool_lots + 1,
            CommandKind.WITHDRAW_COLLATERAL: free_collateral if account.debt_lots else account.collateral_lots,
            CommandKind.REPAY: min(account.debt_lots, self._free_lots(account, debt)),
        }[kind]
        return self._request(kind, number, self._near(lots))

    def _race(self) -> Command:
        """Several liquidators want the same loan: the worst there is, most of the time."""
        lending, settings = self.oracle.lending, self.config.lending
        assert settings is not None
        borrowers = [each for each in range(self.accounts) if self.oracle.accounts[each].debt_lots]
        bad = [each for each in borrowers if lending.is_liquidatable(self.oracle.accounts[each])]
        target = self._one_of(bad or borrowers or [self._any_account()])
        if self._chance(0.03):
            target = self._one_of([self.accounts, *OUTSIDE])
        debt_lots = self.oracle.accounts[target].debt_lots if 0 <= target < self.accounts else 1
        racers = []
        for _ in range(self._between(1, 4)):
            number = self._one_of(self._cash_accounts())
            free_lots = self._free_lots(self.oracle.accounts[number], settings.debt_instrument)
            lots = self._one_of([debt_lots, debt_lots // 2, min(debt_lots, free_lots), free_lots + 1, INT64_MAX, 1])
            racers.append(self._request(CommandKind.LIQUIDATE, number, lots, target))
        self.next += racers[1:]
        if not bad and borrowers and not self.push_left and self._chance(0.5):
            # The collateral falls, or what is owed rises; the loan follows as its oracle hears of it.
            self.pushed, self.push_side = settings.collateral_instrument, Side.SELL
            if not settings.debt_at_par and self._chance(0.3):
                self.pushed, self.push_side = settings.debt_instrument, Side.BUY
            self.push_left = self._between(3, 15)
            return self._index(self.pushed, self.middle[self.pushed])
        return racers[0]

    def _coin(self) -> Command:
        lending, coin = self.oracle.lending, self.config.stablecoin
        assert coin is not None
        minting = self._chance(0.3)
        number = self._one_of(self._cash_accounts()) if minting else self._any_account()
        account = self.oracle.accounts[number]
        if minting:
            stock_lots = lending.issuer.positions[coin.instrument].quantity_lots
            lots = min(account.free_cash // lending.par(), stock_lots)
            return self._request(CommandKind.MINT, number, self._one_of([lots, lots + 1, lots // 3, stock_lots, 1]))
        covered_lots = lending.issuer.cash // lending.par()
        lots = min(self._free_lots(account, coin.instrument), covered_lots)
        if coin.redemption_lots_per_s:
            interval_ns = SECOND_NS // coin.redemption_lots_per_s
            waiting_ns = max(0, lending.redemption_ns - self.now_ns)
            free_lots = (coin.redemption_burst_lots * interval_ns - waiting_ns) // interval_ns
            lots = self._one_of([lots, min(lots, free_lots), free_lots, free_lots + 1, 1])
        return self._request(CommandKind.REDEEM, number, self._one_of([lots, lots, lots + 1, lots // 3]))

    def _spoilt_request(self, command: Command) -> Command:
        return self._one_of(
            [
                command._replace(account=self._one_of([self.accounts, self.accounts + 3, *OUTSIDE])),
                command._replace(quantity_lots=self._one_of([0, MAX_QUANTITY_LOTS, MAX_QUANTITY_LOTS + 1, *OUTSIDE])),
                command._replace(instrument=self._one_of([len(self.instruments), *OUTSIDE])),
                command._replace(target_order_id=self._one_of([self.accounts, *OUTSIDE])),
                command._replace(kind=self._one_of(REQUEST_COMMANDS)),
            ]
        )
