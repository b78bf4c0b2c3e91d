"""Random commands that make the hard cases of docs/matching.md likely. All randomness comes from the seed.

The oracle is stepped along, so that timers are met when they are due, limits and funds are missed by one, and cancels
and replacements hit living, dead and foreign orders alike. The prices of each instrument drift so that most orders
meet someone. Time moves in the breaker's own steps, so that the edges of the windows are hit exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from exchange.config import EngineConfig
from exchange.types import (
    COMMAND,
    MAX_CASH,
    MAX_QUANTITY_LOTS,
    CommandKind,
    Limit,
    OrderType,
    Phase,
    Side,
)
from tests.oracle import Oracle
from tests.oracle_records import NEVER, NOBODY, Command, Order
from tests.workload_admission import VENDORS, Declared

_T = TypeVar("_T")

MAX_ORDER_ID = 2**62 - 1
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
OUTSIDE = (-1, -2, INT64_MIN, INT64_MAX, 1 << 32, 1 << 40)
"""Values that no small enumeration or index contains; some of them look valid if only their low 32 bits are read."""
UNKNOWN_KINDS = (0, 6, 8, 19, 24, 59, 67, *OUTSIDE)
MONEY_KINDS = (16, 17, 18, 23, 60, 61, 62, 63, 64, 65, 66)
"""Of docs/money.md: they must do the right thing in a venue without any of it as well."""
SECOND_NS = 10**9


@dataclass(frozen=True)
class Mix:
    """How often what happens. Shares are of all commands, unless said otherwise."""

    invalid: float = 0.05
    """A command with at least one field that makes no sense."""
    cancel: float = 0.2
    partial_cancel: float = 0.35
    """Of the cancels: those that name a quantity."""
    operator: float = 0.02
    """Deposits, signals, and sessions opened again, after the session began."""
    replace: float = 0.12
    repeat: float = 0.02
    mass_cancel: float = 0.008
    log_on: float = 0.01
    log_off: float = 0.004
    limit: float = 0.02
    """Limits set close to what an order needs, set to anything, and taken off again."""
    timer: float = 0.02
    """Times at which the clock jumps to a timer, or next to it."""
    market: float = 0.12
    """Of the orders; the same for the other types and sell."""
    ioc: float = 0.15
    fok: float = 0.07
    post_only: float = 0.08
    sell: float = 0.5
    large: float = 0.05
    """Of the orders: those that ask for up to everything that one order may."""
    standing_still: float = 0.6
    """Of the time steps: those of 0 ns."""
    jump: float = 0.002
    """Chance that an instrument's price jumps before an order."""
    flood: float = 0.0
    """Chance that the next 20 orders all sell at the market."""
    focus: float = 0.0
    """Of the orders: those for the same instrument as the one before. The rest are for any."""
    spread: float = 0.02
    """Standard deviation of a limit price around the middle, as a share of it."""
    poor: float = 0.3
    """Of the accounts: those with next to nothing."""
    supervisor: float = 0.003
    """Halts and kills by a supervisor; of one participant seldom, of all only near the end."""
    explain: float = 0.02
    """Of the orders, in a venue that does not ask for it: those that are explained."""
    close: float = 0.4
    """Chance that the session is closed before the end."""
    exhausted: float = 0.15
    """Chance, for each, that an account uses up the last order id, or that deposits reach their limit exactly."""
    exact: float = 0.01
    """Of the orders: those that need exactly, or one more than, what their account was just given."""
    at_edges: float = 0.5
    """Of the time steps that are not 0: those measured by the breakers' windows; the others are of 0 to 3 ns."""


def random_mix(rng: np.random.Generator) -> Mix:
    """A mix with some of its shares moved far enough to be another kind of day."""
    mix = Mix(
        invalid=float(rng.choice([0.0, 0.02, 0.05, 0.05, 0.05, 0.2])),
        cancel=float(rng.choice([0.02, 0.1, 0.2, 0.45])),
        replace=float(rng.choice([0.02, 0.12, 0.12, 0.3])),
        limit=float(rng.choice([0.0, 0.0, 0.02, 0.1])),
        log_off=float(rng.choice([0.001, 0.004, 0.02])),
        timer=float(rng.choice([0.005, 0.02, 0.06])),
        market=float(rng.choice([0.02, 0.12, 0.12, 0.4])),
        large=float(rng.choice([0.0, 0.02, 0.05, 0.3])),
        standing_still=float(rng.choice([0.0, 0.3, 0.6, 0.95])),
        spread=float(rng.choice([0.005, 0.01, 0.02, 0.04, 0.3])),
        poor=float(rng.choice([0.0, 0.1, 0.1, 0.3, 0.3, 0.8])),
    )
    if rng.random() < 0.3:
        mix = replace(mix, jump=0.03)
    if rng.random() < 0.3:
        mix = replace(mix, flood=0.02, sell=float(rng.choice([0.5, 0.7])))
    return mix


class Session(NamedTuple):
    """A session's worth of commands, and what the oracle made of them."""

    commands: npt.NDArray[np.void]
    """Records of COMMAND; sequence 1, 2, 3, …; received_ns never decreases."""
    events: list[tuple[int, ...]]
    oracle: Oracle


def random_session(
    seed: int, count: int, config: EngineConfig, mix: Mix | None = None, kind: "type[Day] | None" = None
) -> Session:
    """A session's worth of commands.

    Args:
        seed: of all that is random here.
        count: how many commands, deposits and the opening of the session among them.
        config: what the exchange is built with.
        mix: drawn from the seed if not given.
        kind: of day; a plain one if not given.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    day = (kind or Day)(rng, config, mix or random_mix(rng))
    commands = day.run(count)
    return Session(np.array([tuple(command) for command in commands], dtype=COMMAND), day.events, day.oracle)


def random_commands(
    seed: int, count: int, config: EngineConfig, mix: Mix | None = None, kind: "type[Day] | None" = None
) -> npt.NDArray[np.void]:
    """Only the commands of a `random_session`."""
    return random_session(seed, count, config, mix, kind).commands


class Day:
    """What the generator remembers while it invents one session."""

    def __init__(self, rng: np.random.Generator, config: EngineConfig, mix: Mix) -> None:
        self.rng = rng
        self.mix = mix
        self.config = config
        self.accounts = config.accounts
        self.instruments = config.instruments
        self.now_ns = int(rng.choice([0, 1, 1_000, 10**12]))
        self.cash_deposited = 0
        """By the commands so far and those that are already decided."""
        self.oracle = Oracle(config)
        self.events: list[tuple[int, ...]] = []
        self.next: list[Command] = []
        """What comes next, whatever else might have come."""
        self.focus = 0
        self.flood_left = 0
        self.flooded = 0
        self.middle = [self._first_price(each.price_levels) for each in self.instruments]
        self.usual_lots = [max(1, min(each.max_quantity_lots // 4, 20)) for each in self.instruments]
        if rng.random() < 0.1:
            # The largest numbers that are allowed: where 64 bits would overflow if anything does.
            self.middle = [each.price_levels - 2 for each in self.instruments]
            self.usual_lots = [each.max_quantity_lots for each in self.instruments]
        breakers = [each.breaker for each in self.instruments]
        windows = {each.price_window_ns for each in breakers} | {each.sell_window_ns for each in breakers}
        windows |= {each.imbalance_window_ns for each in breakers} | {each.liquidation_window_ns for each in breakers}
        if config.market_breaker:
            windows.add(config.market_breaker.liquidation_window_ns)
        if config.admission:
            windows.add(config.admission.flow_window_ns)
        self.declared = Declared(rng, config.admission, config.accounts)
        self.steps_ns = [1, 2]
        for window_ns in sorted(windows - {0}):
            self.steps_ns += [window_ns // 8, window_ns // 4, window_ns // 3, window_ns // 2]
            self.steps_ns += [window_ns - 1, window_ns, window_ns + 1, 2 * window_ns]
        for interval_ns in sorted({each.batch_interval_ns for each in self.instruments} - {0}):
            self.steps_ns += [interval_ns // 5, interval_ns // 3, interval_ns]
        if rng.random() < 0.1:
            # Steps in which a message rate recovers.
            self.steps_ns += [SECOND_NS // 50, SECOND_NS // 3, SECOND_NS // 2]

    def run(self, count: int) -> list[Command]:
        """The whole session, numbered and stamped, and given to the oracle."""
        opening: list[Command | Callable[[], Command]] = [
            self._log_on(account) for account in range(self.accounts) if self._chance(0.8)
        ]
        opening += self._deposits()
        if self._chance(0.8):
            opening.insert(0, operator_command(CommandKind.START))
        if self._chance(0.5):
            opening[len(opening) // 2 : len(opening) // 2] = [self._participant() for _ in range(5)]
        opening.append(operator_command(CommandKind.OPEN_SESSION))
        never = count
        self.near_end = count - max(20, count // 12)
        close_at = count - self._between(1, 40) if self._chance(self.mix.close) else never
        exhausted_at = self._between(0, count) if self._chance(self.mix.exhausted) else never
        cash_full_at = self._between(count // 2, count) if self._chance(self.mix.exhausted) else never
        result: list[Command] = []
        for number in range(count):
            if number < len(opening):
                planned = opening[number]
                command = planned() if callable(planned) else planned
            elif number == close_at:
                command = operator_command(CommandKind.CLOSE_SESSION)
            elif number == exhausted_at:
                command = self._order()._replace(order_id=MAX_ORDER_ID)
            elif number == cash_full_at:
                self.next.append(self._deposit_cash(0, 1))
                command = self._deposit_cash(0, MAX_CASH - self.cash_deposited)
            elif self.next:
                command = self.next.pop()
            else:
                command = self._timer() or self._command()
            if number >= len(opening):
                command = self._explained(command)
            result.append(self._stamped(command, number + 1))
            self.events += self.oracle.apply(result[-1])
        return result

    # Chance

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _between(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return low + int(self.rng.random() * (high - low + 1))

    def _one_of(self, values: Sequence[_T]) -> _T:
        return values[self._between(0, len(values) - 1)]

    def _first_price(self, price_levels: int) -> int:
        # Round prices and small ones make a move of exactly the breaker's threshold common.
        fitting = [price for price in (3, 10, 20, 40, 50, 100, 200, 1_000, 10_000) if price < price_levels - 1]
        return self._one_of([*fitting, price_levels // 2])

    def _stamped(self, command: Command, sequence: int) -> Command:
        if not self._chance(self.mix.standing_still):
            self.now_ns += self._one_of(self.steps_ns) if self._chance(self.mix.at_edges) else self._between(0, 3)
        # The engine must not care about these: they are the participant's, or the journal's.
        idle = {
            "heard_ns": self._between(0, 1 << 40),
            "sent_ns": self._between(0, 1 << 40),
            "cause_sequence": self._between(0, sequence),
            # But for that, where it was explained.
            "rule": command.rule or self._between(-3, 9),
            "check": self._between(INT64_MIN // 2, INT64_MAX // 2),
        }
        return command._replace(sequence=sequence, received_ns=self.now_ns, **idle)

    def _explained(self, command: Command) -> Command:
        """The EXPLAIN of an order, which comes next: it fits most of the time."""
        is_order = command.kind in (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER)
        explained = 0.97 if self.config.explanations_required else self.mix.explain
        if not is_order or command.rule or not self._chance(explained):
            return command
        rule = self._one_of([-1, 1, 2, 3, INT64_MIN, INT64_MAX])
        self.next.append(command._replace(rule=rule))
        words = {
            name: self._one_of([0, 1, self._between(INT64_MIN // 2, INT64_MAX // 2), INT64_MIN, INT64_MAX])
            for name in ("instrument", "target_order_id", "side", "order_type", "price_ticks", "quantity_lots")
        }
        why = Command(0, CommandKind.EXPLAIN, command.account, order_id=command.order_id, rule=rule)._replace(**words)
        draw = float(self.rng.random())
        if draw < 0.02:
            return why._replace(order_id=command.order_id ^ self._one_of([1, 2, 1 << 32]))
        if draw < 0.04:
            return why._replace(rule=self._one_of([rule ^ 1, rule ^ (1 << 40)]))
        if draw < 0.06:
            return why._replace(account=self._one_of([self.accounts, command.account ^ 1, *OUTSIDE]))
        return why

    # Commands

    def _deposits(self) -> list[Command | Callable[[], Command]]:
        commands: list[Command | Callable[[], Command]] = []
        if self._chance(self.mix.exhausted):
            account = self.accounts - 1
            commands += [operator_command(CommandKind.DEPOSIT_POSITION, account, 0, MAX_QUANTITY_LOTS)] * 2
            commands += [operator_command(CommandKind.DEPOSIT_POSITION, account, 0, 1)]
        for account in range(self.accounts):
            if account == self.accounts - 1 > 1:
                break
            poor = self._chance(self.mix.poor)
            for instrument, settings in enumerate(self.instruments):
                price = settings.multiplier * self.middle[instrument]
                wealth_lots = self._between(0, 5) if poor else self.usual_lots[instrument] * self._between(20, 1_000)
                share = price * wealth_lots // len(self.instruments)
                amount = min(share, (MAX_CASH - self.cash_deposited) // (1 + self.accounts - account))
                if amount > 0:
                    commands.append(self._deposit_cash(account, amount))
                if wealth_lots and self._chance(0.95):
                    lots = min(wealth_lots, MAX_QUANTITY_LOTS)
                    commands.append(operator_command(CommandKind.DEPOSIT_POSITION, account, instrument, lots))
        return commands

    def _deposit_cash(self, account: int, amount: int) -> Command:
        if 1 <= amount <= MAX_CASH - self.cash_deposited and 0 <= account < len(self.oracle.accounts):
            self.cash_deposited += amount
        return operator_command(CommandKind.DEPOSIT_CASH, account, self._between(-1, 2), amount)

    def _timer(self) -> Command | None:
        """A timer that is due, or one to which the clock jumps; None most of the time."""
        timers = [each.timer_ns for each in self.oracle.instruments]
        due = [number for number, timer_ns in enumerate(timers) if timer_ns <= self.now_ns]
        if due and self._chance(0.5):
            return self._timer_of(self._one_of(due))
        armed = [number for number, timer_ns in enumerate(timers) if self.now_ns < timer_ns < NEVER]
        waiting = all(each.phase in (Phase.HALTED, Phase.AUCTION) for each in self.oracle.instruments)
        if armed and self._chance(self.mix.timer + (0.1 if waiting else 0.0)):
            number = min(armed, key=lambda each: timers[each]) if self._chance(0.8) else self._one_of(armed)
            self.now_ns = max(self.now_ns, timers[number] + self._one_of([-1, 0, 0, 0, 1, 5, 1_500_000]))
            return self._timer_of(number) if self._chance(0.7) else None
        if self._chance(0.004):
            return self._timer_of(self._between(0, len(timers) - 1))
        return None

    def _timer_of(self, instrument: int) -> Command:
        return operator_command(CommandKind.TIMER, NOBODY, instrument)

    def _command(self) -> Command:
        is_late = self.oracle.sequence >= self.near_end
        if self._chance(self.mix.supervisor * (6 if is_late else 1)):
            return self._supervisor()
        if self._chance(self.mix.operator):
            return self._operator()
        if self._chance(self.mix.log_off):
            return operator_command(CommandKind.LOG_OFF, self._any_account(), NOBODY)
        if self._chance(self.mix.limit):
            return self._limited_order() if self._chance(0.5) else self._limit()
        if self._chance(0.01):
            self._let_a_rate_recover()
        if self.config.admission and self._chance(0.1):
            accounts = self.oracle.accounts[: self.accounts]
            absent = [number for number, each in enumerate(accounts) if not (each.logged_on or each.killed)]
            if absent:
                return self._log_on(self._one_of(absent)) if self._chance(0.8) else self._successor(absent)
        if self.config.admission and self.config.admission.vendor_flow_bps and self._chance(0.2):
            return self._walk()
        return self._participant()

    def _successor(self, absent: list[int]) -> Command:
        """Someone logs off and leaves its orders in the book, if there is anyone, and one of the absent asks for its
        place."""
        accounts = self.oracle.accounts[: self.accounts]
        staying = [number for number, each in enumerate(accounts) if each.logged_on and not each.cancel_on_disconnect]
        leaving = [number for number in staying if accounts[number].vendor and self.oracle.resting_of(number)]
        if not leaving:
            return self._participant()
        left = self._one_of(leaving)
        vendor, model, version = accounts[left].vendor, accounts[left].model, accounts[left].model_version
        asking = self._log_on(self._one_of(absent))
        self.next.append(asking._replace(target_order_id=vendor, order_type=model, price_ticks=version))
        return operator_command(CommandKind.LOG_OFF, left, NOBODY)

    def _walk(self) -> Command:
        """An order for what rests at the best prices, a lot more or less, up to the last of them, a tick more or less;
        now and then it is one of those that rest, moved there."""
        order = self._order()
        moved = self._some_order() if self._chance(0.4) else None
        if moved is not None:
            order = order._replace(instrument=moved.instrument, side=moved.side)
        maker_prices = self.oracle.instruments[order.instrument].queues[1 - order.side]
        best_first = sorted(maker_prices, reverse=order.side == Side.SELL)[: self._between(1, 4)]
        if not best_first:
            return order
        settings = self.instruments[order.instrument]
        there_lots = sum(each.leaves_lots for price in best_first for each in maker_prices[price])
        lots = there_lots + self._between(-1, 1) + (moved.filled_lots if moved is not None else 0)
        price_ticks = min(max(best_first[-1] + self._between(-1, 1), 1), settings.price_levels - 1)
        order = order._replace(quantity_lots=min(max(lots, 1), settings.max_quantity_lots), price_ticks=price_ticks)
        if moved is None:
            kind = self._one_of([OrderType.LIMIT, OrderType.IOC, OrderType.FOK, OrderType.MARKET])
            return order._replace(order_type=kind, price_ticks=0 if kind == OrderType.MARKET else price_ticks)
        return order._replace(
            kind=CommandKind.REPLACE_ORDER,
            account=moved.account,
            order_id=self._next_id(moved.account),
            target_order_id=moved.order_id,
            order_type=OrderType.LIMIT,
        )

    def _supervisor(self) -> Command:
        """A halt of one or all, a kill, or one of what does not exist; quantity_lots is what was seen."""
        seen = self._one_of([0, self.oracle.sequence, INT64_MIN, INT64_MAX])
        count = len(self.instruments)
        if self._chance(0.75):
            instrument = self._between(0, count - 1)
            if self._chance(0.3):
                instrument = self._one_of([NOBODY, NOBODY, count, *OUTSIDE[1:]])
            return operator_command(CommandKind.HALT, self._any_account(), instrument, seen)
        if self._chance(0.3):
            return operator_command(CommandKind.KILL_VENDOR, self._vendor_to_kill(), self._between(-1, count), seen)
        account = self._one_of([self.accounts, len(self.oracle.accounts), *OUTSIDE[1:]])
        killed = [number for number, each in enumerate(self.oracle.accounts) if each.killed]
        if killed and self._chance(0.3):
            account = self._one_of(killed)
        elif self.oracle.sequence >= self.near_end and self._chance(0.3):
            account = NOBODY
        elif self._chance(0.3):
            account = self._any_account()
        return operator_command(CommandKind.KILL, account, self._between(-1, count), seen)

    def _vendor_to_kill(self) -> int:
        """One that nobody has a model of, one whose models were killed, or, mostly near the end, a living."""
        declared = [each for each in self.oracle.accounts if each.vendor]
        living = {each.vendor for each in declared if not each.killed}
        absent = {each.vendor for each in declared if not each.logged_on}
        draw = float(self.rng.random())
        if living and draw < (0.7 if self.oracle.sequence >= self.near_end else 0.08):
            return self._one_of(sorted(living & absent) or sorted(living))
        if absent - living and draw < 0.8:
            return self._one_of(sorted(absent - living))
        return self._one_of([0, *(vendor for vendor in VENDORS if vendor not in living), 1024, *OUTSIDE])

    def _participant(self) -> Command:
        if self._chance(self.mix.exact):
            return self._exact_order()
        draw = float(self.rng.random())
        command = None
        for share, make in (
            (self.mix.cancel, self._cancel),
            (self.mix.replace, self._replace),
            (self.mix.repeat, self._repeat),
            (self.mix.mass_cancel, self._mass_cancel),
            (self.mix.log_on, self._log_on),
        ):
            if command is None and draw < share:
                command = make()
            draw -= share
        if command is None:
            command = self._order()
        return self._spoilt(command) if self._chance(self.mix.invalid) else command

    def _any_account(self) -> int:
        return self._between(0, self.accounts - 1)

    def _next_id(self, account: int) -> int:
        return self.oracle.accounts[account].last_order_id + 1

    def _log_on(self, account: int | None = None) -> Command:
        flags = self._between(0, 5) if self._chance(0.9) else self._one_of([6, 7, *OUTSIDE])
        account = self._any_account() if account is None else account
        return self.declared.declare(operator_command(CommandKind.LOG_ON, account, NOBODY, flags))

    def _mass_cancel(self) -> Command:
        instrument = NOBODY if self._chance(0.4) else self._between(0, len(self.instruments) - 1)
        side = self._one_of([0, 1, 2, 2])
        return operator_command(CommandKind.MASS_CANCEL, self._any_account(), instrument)._replace(side=side)

    def _repeat(self) -> Command:
        """An order id that has come before, or is too small."""
        command = self._order() if self._chance(0.6) else self._replace()
        remembered = self.oracle.accounts[command.account].remembered
        if not remembered:
            return command
        if self._chance(0.8):
            return command._replace(order_id=self._one_of(remembered).order_id)
        return command._replace(order_id=max(0, remembered[0].order_id - self._between(1, 3)))

    def _order(self) -> Command:
        # The last account, where there are many, has only what it is given for its exact orders.
        account = self._between(0, self.accounts - (2 if self.accounts > 2 else 1))
        account = self._living(account, range(self.accounts))
        if not self._chance(self.mix.focus):
            self.focus = self._between(0, len(self.instruments) - 1)
        instrument = self.focus
        settings = self.instruments[instrument]
        self._drift(instrument)
        if self._chance(self.mix.flood):
            self.flood_left, self.flooded = 20, instrument
        side = Side.SELL if self._chance(self.mix.sell) else Side.BUY
        draw = float(self.rng.random())
        order_type = OrderType.LIMIT
        if self.flood_left:
            self.flood_left -= 1
            instrument, side, draw = self.flooded, Side.SELL, 0.0
            account = self._any_account()
            settings = self.instruments[instrument]
        price_ticks = self._price(instrument, side)
        if draw < self.mix.market:
            order_type, price_ticks = OrderType.MARKET, 0
        elif draw < self.mix.market + self.mix.ioc:
            order_type = OrderType.IOC
        elif draw < self.mix.market + self.mix.ioc + self.mix.fok:
            order_type = OrderType.FOK
        elif draw < self.mix.market + self.mix.ioc + self.mix.fok + self.mix.post_only:
            order_type = OrderType.POST_ONLY
        market = self.oracle.instruments[instrument]
        if market.phase in (Phase.AUCTION, Phase.BATCH) and order_type in (OrderType.MARKET, OrderType.FOK):
            # They are refused there: that need not come so often.
            if self._chance(0.8):
                order_type = self._one_of([OrderType.LIMIT, OrderType.IOC])
                price_ticks = self._price(instrument, side)
        elif price_ticks and self._chance(0.2):
            price_ticks = market.best_ticks(1 - side) or price_ticks
        most_lots = settings.max_quantity_lots if self._chance(self.mix.large) else self.usual_lots[instrument]
        quantity_lots = self._between(1, most_lots)
        if order_type == OrderType.FOK and self._chance(0.6):
            sign = 1 if side == Side.BUY else -1
            makers = market.resting_of(1 - side)
            there_lots = sum(each.leaves_lots for each in makers if sign * (price_ticks - each.price_ticks) >= 0)
            quantity_lots = max(1, min(there_lots + self._between(-1, 1), settings.max_quantity_lots))
        order = Command(
            sequence=0,
            kind=CommandKind.PLACE_ORDER,
            account=account,
            instrument=instrument,
            order_id=self._next_id(account) + (0 if self._chance(0.9) else self._between(0, 1_000)),
            target_order_id=self._between(0, 3),
            side=side,
            order_type=order_type,
            price_ticks=price_ticks,
            quantity_lots=quantity_lots,
        )
        reopens = market.phase == Phase.AUCTION and market.trigger and settings.breaker.collar_bps
        if reopens and self._chance(0.3):
            return self._far_off(order)
        takes_reducing = market.phase == Phase.HALTED and settings.breaker.risk_reducing_while_halted
        return self._reducing(order) if takes_reducing and self._chance(0.7) else order

    def _living(self, account: int, others: Sequence[int]) -> int:
        """Somebody else, most of the time, if this one was killed, or may not trade because it is not logged on."""
        if self._may_trade(account) or self._chance(0.1):
            return account
        return self._one_of([each for each in others if self._may_trade(each)] or [account])

    def _may_trade(self, number: int) -> bool:
        account = self.oracle.accounts[number]
        return not account.killed and bool(account.logged_on or self.config.admission is None)

    def _reducing(self, order: Command) -> Command:
        """Of all that would reduce a position, or of one lot more; in a halt that takes only such."""
        short = [
            number
            for number, each in enumerate(self.oracle.accounts[: self.accounts])
            if each.positions[order.instrument].quantity_lots < 0 and not each.killed
        ]
        if short and self._chance(0.5):
            account = self._one_of(short)
            order = order._replace(account=account, order_id=self._next_id(account))
        position = self.oracle.accounts[order.account].positions[order.instrument]
        side = Side.SELL if position.quantity_lots >= 0 else Side.BUY
        lots = position.quantity_lots - position.reserved_lots
        if side == Side.BUY:
            lots = -position.quantity_lots - self.oracle.buying_lots(order.account, order.instrument)
        most_lots = self.instruments[order.instrument].max_quantity_lots
        lots = min(lots, self._between(1, self.usual_lots[order.instrument])) if self._chance(0.7) else lots
        return order._replace(
            side=side,
            order_type=OrderType.LIMIT if self._chance(0.95) else order.order_type,
            price_ticks=order.price_ticks or self._price(order.instrument, side),
            quantity_lots=max(1, min(lots + self._one_of([0, 0, 1]), most_lots)),
        )

    def _far_off(self, order: Command) -> Command:
        """Of two sides that meet away from the last price, so that a reopening clears outside its collar."""
        top = self.instruments[order.instrument].price_levels - 1
        last_ticks = self.oracle.instruments[order.instrument].last_ticks or self.middle[order.instrument]
        factor = self._one_of([0.5, 0.8, 0.95, 1.05, 1.2, 2.0])
        price_ticks = min(max(round(last_ticks * factor), 1), top)
        # What is left over on the way there would hold the price back.
        lots = self.instruments[order.instrument].max_quantity_lots if self._chance(0.5) else order.quantity_lots
        account = self._living(self._any_account(), range(self.accounts))
        other = order._replace(account=account, side=1 - order.side, order_id=self._next_id(account))
        for each in (order, other):
            made = each._replace(order_type=OrderType.LIMIT, price_ticks=price_ticks, quantity_lots=lots)
            self.next.append(made)
        return self.next.pop()

    def _exact_order(self) -> Command:
        """Give an account what an order needs, or one unit less, and let it place that order next."""
        account = self.accounts - 1
        order = self._order()._replace(account=account, order_id=self._next_id(account))
        self.next.append(order)
        short = self._between(0, 1)
        if order.side == Side.SELL:
            return operator_command(
                CommandKind.DEPOSIT_POSITION, account, order.instrument, order.quantity_lots - short
            )
        # A market order may be placed with one lot's notional at the lowest price.
        lots_at_one = 1 if order.order_type == OrderType.MARKET else order.price_ticks * order.quantity_lots
        return self._deposit_cash(account, lots_at_one * self.instruments[order.instrument].multiplier - short)

    def _drift(self, instrument: int) -> None:
        top = self.instruments[instrument].price_levels - 1
        middle = self.middle[instrument]
        if self._chance(self.mix.jump):
            middle = int(middle * self._one_of([0.5, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 2.0]))
        elif self._chance(0.1):
            middle += self._between(-1, 1)
        self.middle[instrument] = min(max(middle, 1), top)

    def _price(self, instrument: int, side: int) -> int:
        middle = self.middle[instrument]
        away = 1 if side == Side.SELL else -1
        distance = away * self.mix.spread * middle * (float(self.rng.standard_normal()) + 0.4)
        return min(max(middle + round(distance), 1), self.instruments[instrument].price_levels - 1)

    def _some_order(self) -> Order | None:
        """One that rests, most of the time; None if there never was any."""
        orders = self.oracle.orders
        if self._chance(0.85):
            # Recent orders are those that most likely still rest, old ones those far from the market.
            recent = orders[-60:] if self._chance(0.7) else orders
            living = [order for order in recent if order.leaves_lots]
            orders = living or [order for order in orders if order.leaves_lots] or orders
        return self._one_of(orders) if orders else None

    def _cancel(self) -> Command:
        order = self._some_order()
        if order is None:
            return Command(0, CommandKind.CANCEL_ORDER, account=0, instrument=0, target_order_id=self._between(0, 2))
        wanted_lots = 0
        if self._chance(self.mix.partial_cancel):
            most_lots = self.instruments[order.instrument].max_quantity_lots
            wanted_lots = self._between(1, max(1, min(order.leaves_lots + 1, most_lots)))
        return self._misdirected(
            Command(
                sequence=0,
                kind=CommandKind.CANCEL_ORDER,
                account=order.account,
                instrument=order.instrument,
                target_order_id=order.order_id,
                quantity_lots=wanted_lots,
            )
        )

    def _misdirected(self, command: Command) -> Command:
        """As it is, most of the time."""
        draw = float(self.rng.random())
        if draw > 0.98:
            account = self._any_account()
            new_id = self._next_id(account) if command.kind == CommandKind.REPLACE_ORDER else command.order_id
            return command._replace(account=account, order_id=new_id)
        if draw > 0.96:
            return command._replace(instrument=self._between(0, len(self.instruments) - 1))
        if draw > 0.94:
            return command._replace(target_order_id=command.target_order_id - 1)
        return command

    def _replace(self) -> Command:
        order = self._some_order()
        if order is None:
            return self._order()._replace(kind=CommandKind.REPLACE_ORDER)
        price_ticks, lots = order.price_ticks, order.filled_lots + order.leaves_lots
        usual_lots = self.usual_lots[order.instrument]
        match self._between(0, 9):
            case 0 | 1:
                lots = order.filled_lots + self._between(1, max(1, order.leaves_lots))
            case 2:
                lots = self._between(1, order.filled_lots + 1)
            case 3:
                pass
            case 4:
                lots += self._between(1, usual_lots)
            case 5 | 6:
                price_ticks = self._price(order.instrument, order.side)
            case 7:
                best_ticks = self.oracle.instruments[order.instrument].best_ticks(1 - order.side)
                price_ticks = self._price(order.instrument, 1 - order.side)
                if best_ticks and self._chance(0.6):
                    price_ticks = best_ticks
                lots += self._between(-usual_lots, usual_lots)
            case 8:
                price_ticks += self._between(-1, 1)
                lots += self._between(-1, 1)
            case 9:
                price_ticks = self._price(order.instrument, order.side)
                lots = order.filled_lots + self._affordable_lots(order, price_ticks) + self._between(0, 1)
        order_type = OrderType.LIMIT if self._chance(0.7) else OrderType.POST_ONLY
        return self._misdirected(
            Command(
                sequence=0,
                kind=CommandKind.REPLACE_ORDER,
                account=order.account,
                instrument=order.instrument,
                order_id=self._next_id(order.account) + (0 if self._chance(0.9) else self._between(0, 1_000)),
                target_order_id=order.order_id,
                side=self._one_of([0, 1, 7]),
                order_type=order_type if self._chance(0.97) else self._between(0, 5),
                price_ticks=max(price_ticks, 1),
                quantity_lots=max(lots, 1),
            )
        )

    def _affordable_lots(self, order: Order, price_ticks: int) -> int:
        """What its account could have at this price if the order were gone."""
        account = self.oracle.accounts[order.account]
        instrument = self.oracle.instruments[order.instrument]
        if order.side == Side.SELL:
            position = account.positions[order.instrument]
            return position.quantity_lots - position.reserved_lots + order.leaves_lots
        free_cash = account.free_cash + instrument.notional(order.price_ticks, order.leaves_lots)
        return free_cash // instrument.notional(price_ticks, 1)

    def _limit(self) -> Command:
        """Any limit of any account; often none."""
        account, limit = self._any_account(), self._one_of(list(Limit))
        if self._chance(0.1):
            limit = self._one_of([0, 6, *OUTSIDE])
        instrument = self._between(0, len(self.instruments) - 1)
        usual_lots = self.usual_lots[instrument]
        amount = {
            Limit.ORDER_LOTS: usual_lots,
            Limit.OPEN_ORDERS: self._between(1, 20),
            Limit.POSITION_LOTS: self._one_of([1, usual_lots * 20, usual_lots * 1_000]),
            Limit.NOTIONAL: usual_lots * self.middle[instrument] * self.instruments[instrument].multiplier,
            Limit.MESSAGES_PER_S: self._one_of([1, 2, 3, 7, 50, 1_000, 10**9, 10**9 + 1, 3 * 10**9, MAX_CASH]),
        }.get(limit, 5)
        draw = float(self.rng.random())
        if draw < 0.5:
            amount = 0
        elif draw < 0.6:
            amount = self._one_of([-1, 1, MAX_CASH, MAX_CASH + 1, INT64_MIN, INT64_MAX])
        return operator_command(CommandKind.SET_LIMIT, account, limit, amount)

    def _limited_order(self) -> Command:
        """Give an account a limit that an order meets exactly, or misses by one, and let it place that order next."""
        order = self._order() if self._chance(0.7) else self._replace()
        account, instrument = order.account, self.oracle.instruments[order.instrument]
        bids = instrument.resting_of(Side.BUY)
        resting = [each for each in self.oracle.orders if each.account == account and each.leaves_lots]
        buying_lots = sum(each.leaves_lots for each in bids if each.account == account)
        held_lots = self.oracle.accounts[account].positions[order.instrument].quantity_lots
        best_ticks = instrument.best_ticks(1 if order.side == Side.BUY else 0) or 1
        lots, gone_lots = order.quantity_lots, 0
        for each in resting:
            if order.kind == CommandKind.REPLACE_ORDER and each.order_id == order.target_order_id:
                lots -= each.filled_lots
                gone_lots = each.leaves_lots
        needed = {
            Limit.ORDER_LOTS: order.quantity_lots,
            Limit.OPEN_ORDERS: len(resting) + 1,
            Limit.POSITION_LOTS: held_lots + buying_lots - gone_lots + lots,
            Limit.NOTIONAL: instrument.notional(order.price_ticks or best_ticks, lots),
            Limit.MESSAGES_PER_S: self._between(1, 3),
        }
        limit = self._one_of(list(Limit))
        if self._chance(0.7):
            self.next.append(operator_command(CommandKind.SET_LIMIT, account, limit, 0))
        orders = [order]
        if limit == Limit.MESSAGES_PER_S:
            orders = [order._replace(order_id=order.order_id + number) for number in (3, 2, 1, 0)]
        self.next += orders
        return operator_command(CommandKind.SET_LIMIT, account, limit, max(1, needed[limit] - self._between(0, 1)))

    def _let_a_rate_recover(self) -> None:
        """Move the clock to the moment at which an account may send again, or 1 ns before it."""
        account = self.oracle.accounts[self._any_account()]
        rate = account.limits[Limit.MESSAGES_PER_S]
        if rate:
            free_ns = account.rate_ns - (SECOND_NS - SECOND_NS // rate)
            self.now_ns = max(self.now_ns, free_ns - self._between(0, 1))

    def _spoilt(self, command: Command) -> Command:
        """One or two fields made invalid, so that the order of the checks shows as well."""
        spoilers: list[Callable[[Command], Command]] = [
            lambda c: c._replace(account=self._one_of([self.accounts, *OUTSIDE])),
            lambda c: c._replace(instrument=self._one_of([len(self.instruments), *OUTSIDE])),
            lambda c: c._replace(quantity_lots=self._bad_quantity(c)),
        ]
        if command.kind in (CommandKind.CANCEL_ORDER, CommandKind.REPLACE_ORDER):
            targets = [0, -1, MAX_ORDER_ID, INT64_MIN, INT64_MAX, command.target_order_id + (1 << 32)]
            spoilers.append(lambda c: c._replace(target_order_id=self._one_of(targets)))
        if command.kind != CommandKind.CANCEL_ORDER:
            spoilers += [
                lambda c: c._replace(order_id=self._bad_order_id(c)),
                lambda c: c._replace(side=self._one_of([2, 3, *OUTSIDE])),
                lambda c: c._replace(order_type=self._one_of([5, *OUTSIDE])),
                lambda c: c._replace(price_ticks=self._bad_price(c)),
            ]
        spoilers.append(lambda c: c._replace(kind=self._one_of([*UNKNOWN_KINDS, *MONEY_KINDS])))
        for _ in range(self._between(1, 2)):
            command = self._one_of(spoilers)(command)
        return command

    def _bad_quantity(self, command: Command) -> int:
        most_lots = MAX_QUANTITY_LOTS
        if 0 <= command.instrument < len(self.instruments):
            most_lots = self.instruments[command.instrument].max_quantity_lots
        # The largest allowed one is no mistake by itself; it is the one next to it.
        return self._one_of([0, most_lots, most_lots + 1, *OUTSIDE])

    def _bad_order_id(self, command: Command) -> int:
        last = self._next_id(command.account) - 1 if 0 <= command.account < self.accounts else 1
        return self._one_of([0, last, max(0, last - 1), 1, MAX_ORDER_ID + 1, *(-1, INT64_MIN, INT64_MAX)])

    def _bad_price(self, command: Command) -> int:
        top = 64
        if 0 <= command.instrument < len(self.instruments):
            top = self.instruments[command.instrument].price_levels
        return self._one_of([0, 1, top - 1, top, top + 1, *OUTSIDE])

    def _operator(self) -> Command:
        account = self._between(0, self.accounts - 1) if self._chance(0.8) else self._one_of([self.accounts, *OUTSIDE])
        instrument = self._between(0, len(self.instruments) - 1)
        if self._chance(0.2):
            instrument = self._one_of([len(self.instruments), *OUTSIDE])
        match self._one_of(["cash", "position", "signal", "signal", "open", "unknown", "venue"]):
            case "cash":
                return self._deposit_cash(account, self._cash_amount())
            case "position":
                lots = self._one_of([0, -5, 1, 7, 100, MAX_QUANTITY_LOTS, MAX_QUANTITY_LOTS + 1, INT64_MIN, INT64_MAX])
                return operator_command(CommandKind.DEPOSIT_POSITION, account, instrument, lots)
            case "signal":
                bps = self._one_of([0, 1, -1, self._between(-9_999, 9_999), INT64_MIN, INT64_MAX])
                return operator_command(CommandKind.PUBLISH_SIGNAL, account, instrument, bps)
            case "venue":
                kind = self._one_of([CommandKind.START, CommandKind.TIMER, CommandKind.LOG_OFF, CommandKind.SET_LIMIT])
                return operator_command(kind, account, instrument, self._one_of([0, 3, INT64_MAX]))
            case "open":
                return operator_command(CommandKind.OPEN_SESSION, account, instrument, 5)
            case _:
                return operator_command(self._one_of([*UNKNOWN_KINDS, *MONEY_KINDS]), account, instrument, 5)

    def _cash_amount(self) -> int:
        too_much = [INT64_MAX, MAX_CASH, MAX_CASH + 1, MAX_CASH - self.cash_deposited + 1]
        return self._one_of([0, -1, INT64_MIN, *too_much, 1, 9, 50, 1_000])


def operator_command(kind: int, account: int = 0, instrument: int = 0, quantity_lots: int = 0) -> Command:
    """A command of the operator; an order's fields are filled in too, and must come back as 0."""
    return Command(
        sequence=0,
        kind=kind,
        account=account,
        instrument=instrument,
        order_id=77,
        target_order_id=78,
        side=1,
        order_type=2,
        price_ticks=79,
        quantity_lots=quantity_lots,
    )
