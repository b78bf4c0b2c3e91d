"""Random commands that make the hard cases of docs/matching.md likely. All randomness comes from the seed.

The generator runs no exchange. It guesses: it remembers which orders it sent and forgets those that it cancelled, so
that cancels hit living, dead and foreign orders alike, and it lets the prices of each instrument drift so that most
orders meet someone. Time moves in the breaker's own steps, so that the edges of the windows are hit exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from exchange.types import COMMAND, MAX_CASH, MAX_QUANTITY_LOTS, CommandKind, OrderType, Side
from tests.oracle_records import Command, Settings

_T = TypeVar("_T")

MAX_ORDER_ID = 2**62 - 1
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
OUTSIDE = (-1, -2, INT64_MIN, INT64_MAX, 1 << 32, 1 << 40)
"""Values that no small enumeration or index contains; some of them look valid if only their low 32 bits are read."""


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
    market: float = 0.12
    """Of the orders; the same for ioc and sell."""
    ioc: float = 0.15
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
        cancel=float(rng.choice([0.02, 0.2, 0.2, 0.45])),
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


def random_commands(seed: int, count: int, config: Settings, mix: Mix | None = None) -> npt.NDArray[np.void]:
    """A session's worth of commands.

    Args:
        seed: of all that is random here.
        count: how many commands, deposits and the opening of the session among them.
        config: what the exchange is built with; see `tests.oracle_records.Settings`.
        mix: drawn from the seed if not given.

    Returns:
        count records of COMMAND; sequence 1, 2, 3, …; received_ns never decreases.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    day = _Day(rng, config, mix or random_mix(rng))
    commands = day.commands(count)
    return np.array([tuple(command) for command in commands], dtype=COMMAND)


class _Day:
    """What the generator remembers while it invents one session."""

    def __init__(self, rng: np.random.Generator, config: Settings, mix: Mix) -> None:
        self.rng = rng
        self.mix = mix
        self.config = config
        self.accounts = config.accounts
        self.instruments = config.instruments
        self.now_ns = int(rng.choice([0, 1, 1_000, 10**12]))
        self.last_order_id = [0] * self.accounts
        self.cash_deposited = 0
        self.sent: list[tuple[int, int, int, int]] = []
        """(account, instrument, order_id, quantity_lots) of limit orders that may still rest."""
        self.ended: list[tuple[int, int, int, int]] = []
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
        self.steps_ns = [1, 2]
        for window_ns in sorted(windows - {0}):
            self.steps_ns += [window_ns // 8, window_ns // 4, window_ns // 3, window_ns // 2]
            self.steps_ns += [window_ns - 1, window_ns, window_ns + 1, 2 * window_ns]

    def commands(self, count: int) -> list[Command]:
        """The whole session, numbered and stamped."""
        opening = self._deposits()
        if self._chance(0.5):
            opening[len(opening) // 2 : len(opening) // 2] = [self._participant() for _ in range(5)]
        opening.append(_operator(CommandKind.OPEN_SESSION))
        never = count
        close_at = count - self._between(1, 40) if self._chance(self.mix.close) else never
        exhausted_at = self._between(0, count) if self._chance(self.mix.exhausted) else never
        cash_full_at = self._between(count // 2, count) if self._chance(self.mix.exhausted) else never
        result: list[Command] = []
        for number in range(count):
            if number < len(opening):
                command = opening[number]
            elif number == close_at:
                command = _operator(CommandKind.CLOSE_SESSION)
            elif number == exhausted_at:
                command = self._order()._replace(order_id=MAX_ORDER_ID)
            elif number == cash_full_at:
                self.next.append(self._deposit_cash(0, 1))
                command = self._deposit_cash(0, MAX_CASH - self.cash_deposited)
            elif self.next:
                command = self.next.pop()
            else:
                command = self._command()
            result.append(self._stamped(command, number + 1))
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
            "rule": self._between(-3, 9),
            "check": self._between(INT64_MIN // 2, INT64_MAX // 2),
        }
        return command._replace(sequence=sequence, received_ns=self.now_ns, **idle)

    # Commands

    def _deposits(self) -> list[Command]:
        commands = []
        if self._chance(self.mix.exhausted):
            account = self.accounts - 1
            commands += [_operator(CommandKind.DEPOSIT_POSITION, account, 0, MAX_QUANTITY_LOTS)] * 2
            commands += [_operator(CommandKind.DEPOSIT_POSITION, account, 0, 1)]
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
                    commands.append(_operator(CommandKind.DEPOSIT_POSITION, account, instrument, lots))
        return commands

    def _deposit_cash(self, account: int, amount: int) -> Command:
        if 1 <= amount <= MAX_CASH - self.cash_deposited and 0 <= account < self.accounts:
            self.cash_deposited += amount
        return _operator(CommandKind.DEPOSIT_CASH, account, self._between(-1, 2), amount)

    def _command(self) -> Command:
        if self._chance(self.mix.operator):
            return self._operator()
        return self._participant()

    def _participant(self) -> Command:
        if self._chance(self.mix.exact):
            return self._exact_order()
        command = self._cancel() if self._chance(self.mix.cancel) else self._order()
        if self._chance(self.mix.invalid):
            command = self._spoilt(command)
        self._remember(command)
        return command

    def _order(self) -> Command:
        # The last account, where there are many, has only what it is given for its exact orders.
        account = self._between(0, self.accounts - (2 if self.accounts > 2 else 1))
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
            settings = self.instruments[instrument]
        price_ticks = self._price(instrument, side)
        if draw < self.mix.market:
            order_type, price_ticks = OrderType.MARKET, 0
        elif draw < self.mix.market + self.mix.ioc:
            order_type = OrderType.IOC
        most_lots = settings.max_quantity_lots if self._chance(self.mix.large) else self.usual_lots[instrument]
        return Command(
            sequence=0,
            kind=CommandKind.PLACE_ORDER,
            account=account,
            instrument=instrument,
            order_id=self.last_order_id[account] + (1 if self._chance(0.9) else self._between(1, 1_000)),
            target_order_id=self._between(0, 3),
            side=side,
            order_type=order_type,
            price_ticks=price_ticks,
            quantity_lots=self._between(1, most_lots),
        )

    def _exact_order(self) -> Command:
        """Give an account what an order needs, or one unit less, and let it place that order next."""
        account = self.accounts - 1
        order = self._order()._replace(account=account, order_id=self.last_order_id[account] + 1)
        self._remember(order)
        self.next.append(order)
        short = self._between(0, 1)
        if order.side == Side.SELL:
            return _operator(CommandKind.DEPOSIT_POSITION, account, order.instrument, order.quantity_lots - short)
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

    def _cancel(self) -> Command:
        draw = float(self.rng.random())
        orders = self.sent if (draw < 0.8 and self.sent) or not self.ended else self.ended
        if not orders:
            return Command(0, CommandKind.CANCEL_ORDER, account=0, instrument=0, target_order_id=self._between(0, 2))
        # Recent orders are those that most likely still rest, old ones those far from the market.
        recent = self._chance(0.7)
        index = (
            self._between(max(0, len(orders) - 30), len(orders) - 1) if recent else self._between(0, len(orders) - 1)
        )
        account, instrument, order_id, quantity_lots = orders[index]
        wanted_lots = 0
        if self._chance(self.mix.partial_cancel):
            wanted_lots = self._between(1, min(quantity_lots + 1, self.instruments[instrument].max_quantity_lots))
        if wanted_lots in (0, quantity_lots) and orders is self.sent:
            self.ended.append(orders.pop(index))
        if draw > 0.97:
            account = self._between(0, self.accounts - 1)
        elif draw > 0.94:
            instrument = self._between(0, len(self.instruments) - 1)
        return Command(
            sequence=0,
            kind=CommandKind.CANCEL_ORDER,
            account=account,
            instrument=instrument,
            target_order_id=order_id,
            quantity_lots=wanted_lots,
        )

    def _remember(self, command: Command) -> None:
        account, order_id = command.account, command.order_id
        if command.kind != CommandKind.PLACE_ORDER or not 0 <= account < self.accounts:
            return
        if not self.last_order_id[account] < order_id < MAX_ORDER_ID:
            return
        self.last_order_id[account] = order_id
        if command.order_type == OrderType.LIMIT and 0 <= command.instrument < len(self.instruments):
            self.sent.append((account, command.instrument, order_id, max(1, command.quantity_lots)))

    def _spoilt(self, command: Command) -> Command:
        """One or two fields made invalid, so that the order of the checks shows as well."""
        spoilers: list[Callable[[Command], Command]] = [
            lambda c: c._replace(account=self._one_of([self.accounts, *OUTSIDE])),
            lambda c: c._replace(instrument=self._one_of([len(self.instruments), *OUTSIDE])),
            lambda c: c._replace(quantity_lots=self._bad_quantity(c)),
        ]
        if command.kind == CommandKind.CANCEL_ORDER:
            targets = [0, -1, MAX_ORDER_ID, INT64_MIN, INT64_MAX, command.target_order_id + (1 << 32)]
            spoilers.append(lambda c: c._replace(target_order_id=self._one_of(targets)))
        else:
            spoilers += [
                lambda c: c._replace(order_id=self._bad_order_id(c)),
                lambda c: c._replace(side=self._one_of([2, *OUTSIDE])),
                lambda c: c._replace(order_type=self._one_of([3, *OUTSIDE])),
                lambda c: c._replace(price_ticks=self._bad_price(c)),
            ]
        spoilers.append(lambda c: c._replace(kind=self._one_of([0, 3, 9, 15, *OUTSIDE])))
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
        last = self.last_order_id[command.account] if 0 <= command.account < self.accounts else 1
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
        match self._one_of(["cash", "position", "signal", "signal", "open", "unknown"]):
            case "cash":
                return self._deposit_cash(account, self._cash_amount())
            case "position":
                lots = self._one_of([0, -5, 1, 7, 100, MAX_QUANTITY_LOTS, MAX_QUANTITY_LOTS + 1, INT64_MIN, INT64_MAX])
                return _operator(CommandKind.DEPOSIT_POSITION, account, instrument, lots)
            case "signal":
                bps = self._one_of([0, 1, -1, self._between(-9_999, 9_999), INT64_MIN, INT64_MAX])
                return _operator(CommandKind.PUBLISH_SIGNAL, account, instrument, bps)
            case "open":
                return _operator(CommandKind.OPEN_SESSION, account, instrument, 5)
            case _:
                return _operator(self._one_of([0, 3, 9, 15, *OUTSIDE]), account, instrument, 5)

    def _cash_amount(self) -> int:
        too_much = [INT64_MAX, MAX_CASH, MAX_CASH + 1, MAX_CASH - self.cash_deposited + 1]
        return self._one_of([0, -1, INT64_MIN, *too_much, 1, 9, 50, 1_000])


def _operator(kind: int, account: int = 0, instrument: int = 0, quantity_lots: int = 0) -> Command:
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
