"""The engine against the oracle: the same commands to both, every field of every event, the state, the invariants."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exchange.config import BreakerConfig, EngineConfig, InstrumentConfig, LimitsConfig
from exchange.types import (
    MAX_MULTIPLIER,
    MAX_PRICE_LEVELS,
    MAX_QUANTITY_LOTS,
    BreakerAction,
    EventKind,
    Phase,
    Reason,
    Trigger,
)
from tests.oracle import Oracle
from tests.oracle_records import Command, Event
from tests.workload import Day, Mix, Session, random_mix, random_session
from tests.workload_admission import random_admission
from tests.workload_breaker import Breakers
from tests.workload_money import MoneyDay, random_money_case

if TYPE_CHECKING:
    from exchange.engine import Engine

Records = npt.NDArray[np.void]
NO_REASON = (
    EventKind.INSTRUMENT_HALTED,
    EventKind.LIMIT_SET,
    EventKind.PARTICIPANTS_KILLED,
    EventKind.THRESHOLD_PUBLISHED,
)
"""Whose field `reason` is a Trigger or a Limit."""


@dataclass
class Report:
    """What one comparison came to."""

    seed: int
    commands: int
    events: int = 0
    kinds: Counter[EventKind] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    triggers: Counter[Trigger] = field(default_factory=Counter)
    actions: Counter[BreakerAction] = field(default_factory=Counter)
    phases: Counter[Phase] = field(default_factory=Counter)
    difference: str = ""
    """Empty if there was none; else what to print: the seed, the command, and what each of the two made of it."""


def random_case(seed: int) -> tuple[EngineConfig, Mix]:
    """A small exchange with every kind of limit and breaker among its kin, and what kind of day it has.

    Args:
        seed: of all that is random here.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    if rng.random() < 0.3:
        return _breaker_case(rng)

    def one_of(*values: int) -> int:
        return int(rng.choice(values))

    # Once an instrument has halted for good, a run tests little more on it: let many have no breaker, or halt briefly.
    armed = float(rng.choice([0.0, 0.3, 0.6, 0.6]))
    batches = float(rng.choice([0.0, 0.0, 0.3, 1.0]))
    opening = float(rng.choice([0.0, 0.3, 1.0]))
    count = one_of(1, 2, 3, 3, 5)
    breakers = Breakers(rng, count)

    def breaker(interval_ns: int) -> BreakerConfig:
        price_move_bps, sell_volume_lots = 0, 0
        if rng.random() < armed:
            price_move_bps = one_of(1, 200, 500, 1_000, 1_000, 2_000, 2_000, 2_500, 2_500, 5_000, 5_000, 10_000)
        if not interval_ns and rng.random() < armed:
            sell_volume_lots = one_of(1, 30, 100, 300, 300, 1_000, 1_000, 3_000, 10_000)
        windows_ns = (1, interval_ns, interval_ns, interval_ns + 1, 3 * interval_ns, 10**9)
        if not interval_ns:
            windows_ns = (1, 2, 8, 8, 40, 40, 200, 10**9)
        return breakers.next(
            batches=interval_ns > 0,
            windows_ns=windows_ns,
            price_move_bps=price_move_bps,
            price_window_ns=one_of(*windows_ns) if price_move_bps else 0,
            sell_volume_lots=sell_volume_lots,
            sell_window_ns=one_of(*windows_ns) if sell_volume_lots else 0,
            halt_ns=one_of(0, 1, 5, 40, 200, 1_000_000),
            reopening_auction_ns=one_of(1, 10, 60, 300, 1_500_000),
            cancels_while_halted=bool(one_of(0, 1)),
        )

    def instrument() -> InstrumentConfig:
        interval_ns = one_of(1_000_000, 1_000_000, 3_333_333, 10**9) if rng.random() < batches else 0
        return InstrumentConfig(
            price_levels=one_of(64, 128, 256, 1024, 1024, 4096, 65_536, MAX_PRICE_LEVELS),
            multiplier=one_of(1, 1, 1, 10, 100, MAX_MULTIPLIER),
            max_quantity_lots=one_of(1, 5, 20, 100, 100, 1_000, 1_000, 1_000, MAX_QUANTITY_LOTS),
            batch_interval_ns=interval_ns,
            opening_auction_ns=one_of(1, 50, 400, 2_000_000) if rng.random() < opening else 0,
            breaker=breaker(interval_ns),
        )

    limits = LimitsConfig()
    if rng.random() < 0.2:
        limits = LimitsConfig(
            order_lots=one_of(0, 0, 15, 100),
            open_orders=one_of(0, 5, 30),
            position_lots=one_of(0, 0, 500, 5_000),
            notional=one_of(0, 0, 1_000_000),
            messages_per_s=one_of(0, 0, 20, 200),
        )
    accounts = one_of(1, 2, 4, 4, 8, 8, 20)
    instruments = tuple(instrument() for _ in range(count))
    config = EngineConfig(
        instruments=instruments,
        accounts=accounts,
        max_orders=one_of(1, 10, 50, 200, 1_000, 1_000, 1_000, 1_000),
        limits=limits,
        remembered_orders=one_of(1, 2, 4, 32, 32, 4_096),
        market_breaker=breakers.market(0.15),
        **random_admission(rng, instruments, accounts, (1, 8, 40, 200, 1_000_000, 10**9)),
    )
    return config, random_mix(rng)


def _breaker_case(rng: np.random.Generator) -> tuple[EngineConfig, Mix]:
    """Many instruments, so many halts, each close to its threshold and to the edge of its window.

    Windows of a few time steps and thresholds of a few ticks or orders make it matter that a fill exactly at an edge
    is counted, or is not.
    """
    windows_ns = [int(value) for value in rng.choice([3, 5, 8, 12, 24, 100], size=2)]
    instruments = []
    count = int(rng.integers(6, 24))
    breakers = Breakers(rng, count)
    for _ in range(count):
        kind = int(rng.integers(1, 4))
        price_move_bps = int(rng.choice([1_000, 1_500, 2_000, 2_000, 2_500, 3_000, 5_000])) if kind & 1 else 0
        sell_volume_lots = int(rng.choice([8, 12, 16, 20, 30])) if kind & 2 else 0
        breaker = breakers.next(
            batches=False,
            windows_ns=tuple(windows_ns),
            price_move_bps=price_move_bps,
            price_window_ns=windows_ns[0] if price_move_bps else 0,
            sell_volume_lots=sell_volume_lots,
            sell_window_ns=windows_ns[1] if sell_volume_lots else 0,
            # Short enough that what was traded before the halt would still be in the window after it.
            halt_ns=int(rng.choice([0, 1, 1, 3, 30])),
            reopening_auction_ns=int(rng.choice([1, 1, 3, 30])),
            cancels_while_halted=bool(rng.choice([False, True])),
        )
        instruments.append(
            InstrumentConfig(
                price_levels=64,
                max_quantity_lots=int(rng.choice([8, 20, 40])),
                opening_auction_ns=int(rng.choice([0, 0, 20])),
                breaker=breaker,
            )
        )
    mix = Mix(
        invalid=0.01,
        cancel=0.05,
        replace=0.05,
        limit=0.003,
        log_off=0.0,
        operator=0.005,
        large=0.02,
        market=0.05,
        standing_still=float(rng.choice([0.0, 0.3, 0.6])),
        at_edges=float(rng.choice([0.05, 0.1, 0.3])),
        jump=float(rng.choice([0.0, 0.0, 0.01])),
        focus=float(rng.choice([0.0, 0.8, 0.95])),
        spread=float(rng.choice([0.04, 0.08, 0.12])),
        poor=0.0,
    )
    config = EngineConfig(
        instruments=tuple(instruments),
        accounts=4,
        max_orders=1_000,
        market_breaker=breakers.market(0.15),
        **random_admission(rng, instruments, 4, tuple(windows_ns)),
    )
    return config, mix


def session_of(seed: int, commands: int, money: bool) -> Session:
    """The exchange and the session of a seed; with money, those of docs/money.md."""
    config, mix = random_money_case(seed) if money else random_case(seed)
    return random_session(seed, commands, config, mix, MoneyDay if money else Day)


def compare(seed: int, commands: int, money: bool = False) -> Report:
    """Build an exchange and a session from the seed, run both, and say whether and where they differ.

    Args:
        seed: of the configuration and of the commands.
        commands: how many.
        money: whether the venue's money can run out.
    """
    from exchange.engine import Engine

    given, expected, oracle = session_of(seed, commands, money)
    config = oracle.config
    kept = given.copy()
    engine = Engine(config)
    report = Report(seed, commands)
    actual = apply_in_batches(engine, given)
    report.events = len(expected)
    for each in map(Event._make, expected):
        report.kinds[EventKind(each.kind)] += 1
        if each.kind == EventKind.INSTRUMENT_HALTED:
            report.triggers[Trigger(each.reason)] += 1
            report.actions[BreakerAction(each.maker_leaves_lots)] += 1
        elif each.kind not in NO_REASON:
            report.reasons[Reason(each.reason)] += 1
        if each.kind == EventKind.PHASE_CHANGED:
            report.phases[Phase(each.value)] += 1
    oracle.check_invariants()
    if actual != expected:
        report.difference = _first_difference(seed, given, actual, expected)
    elif (resting := _resting_difference(engine, oracle)) != "":
        report.difference = f"seed {seed}: all events are equal, {resting}"
    elif engine.state_hash() != oracle.state_hash():
        report.difference = f"seed {seed}: all events are equal, the state hashes are not"
    elif not np.array_equal(given, kept):
        report.difference = f"seed {seed}: the engine changed the commands that it was given"
    return report


def apply_in_batches(engine: "Engine", commands: Records, sizes: list[int] | None = None) -> list[tuple[int, ...]]:
    """All events as tuples of Python integers. What is left after the last of the sizes is one more batch."""
    events: list[tuple[int, ...]] = []
    first = 0
    for size in [*(sizes or []), len(commands)]:
        # Copied at once: the engine may use its output again at the next call.
        events += engine.apply(commands[first : first + size]).tolist()
        first += size
    return events


def _resting_difference(engine: "Engine", oracle: Oracle) -> str:
    for number in range(len(oracle.instruments)):
        rows, expected = engine.resting(number), oracle.resting_rows(number)
        name = f"Engine.resting({number})"
        if rows.shape != (len(expected), 7) or rows.dtype != np.int64:
            return f"{name} is {rows.dtype}{list(rows.shape)}, not int64[{len(expected)}, 7]"
        if [tuple(row) for row in rows.tolist()] != expected:
            return f"{name} is not:\n  engine: {rows.tolist()}\n  oracle: {expected}"
    return ""


def _first_difference(seed: int, commands: Records, actual: list[Any], expected: list[Any]) -> str:
    pairs = zip_longest(actual, expected)
    first_pair = next(pair for pair in pairs if pair[0] != pair[1])
    sequence = min(event[0] for event in first_pair if event is not None)
    lines = [f"seed {seed}: first difference at sequence {sequence}"]
    command = Command(*commands[sequence - 1].item())
    lines.append(f"  {command}")
    for name, events in (("engine", actual), ("oracle", expected)):
        lines.append(f"  {name}:")
        lines += [f"    {_readable(event)}" for event in events if event[0] == sequence]
    return "\n".join(lines)


def _readable(event: tuple[int, ...]) -> str:
    """Kind, reason and every field that is not at rest."""
    named = Event._make(event)
    kind = EventKind(named.kind).name if named.kind in set(EventKind) else f"kind {named.kind}"
    rest = ", ".join(
        f"{name}={value}"
        for name, value in named._asdict().items()
        if name != "kind" and value != Event._field_defaults.get(name)
    )
    return f"{kind}({rest})"
