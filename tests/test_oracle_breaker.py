"""The oracle of docs/breaker.md: what its random sessions reach, and windows that are full."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from exchange.config import BreakerConfig, EngineConfig, MarginConfig, MarketBreakerConfig
from exchange.engine import Engine
from exchange.types import (
    COMMAND,
    ORDER_COMMANDS,
    REQUEST_COMMANDS,
    BreakerAction,
    CommandKind,
    EventKind,
    Phase,
    Reason,
    Side,
    SystemAccount,
    Trigger,
)
from tests.comparison import apply_in_batches, session_of
from tests.oracle import Oracle
from tests.oracle_records import NOBODY, Command, Event
from tests.scenario_parts import MS, exchange, market, operator, place

SEEDS = range(80)
COMMANDS = 600


class Reached:
    """What happened in some sessions, by name."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.last_halt: dict[int, int] = {}

    def session(self, seed: int, money: bool) -> None:
        session = session_of(seed, COMMANDS, money)
        oracle = Oracle(session.oracle.config)
        for record in session.commands:
            command = Command(*record.item())
            was_killed = {number for number, each in enumerate(oracle.accounts) if each.killed}
            halted = {number for number, each in enumerate(oracle.instruments) if each.phase == Phase.HALTED}
            extensions = [each.extensions for each in oracle.instruments]
            events = [Event._make(event) for event in oracle.apply(command)]
            self.command(oracle, command, events, was_killed, halted)
            for event in events:
                self.event(oracle, command, event, was_killed)
                if event.kind == EventKind.AUCTION_ENDED and extensions[event.instrument]:
                    self.counts["extended, then cleared" if event.price_ticks else "extended, then nothing"] += 1
                    most = oracle.instruments[event.instrument].settings.breaker.collar_extensions
                    self.counts["extended as often as allowed"] += extensions[event.instrument] == most
            for instrument in oracle.instruments:
                if instrument.phase == Phase.HALTED and any(order.expiring for order in instrument.resting()):
                    self.counts["an expiring order waits in a halt"] += 1
        killed = [each.killed for each in oracle.accounts[: oracle.participants]]
        self.counts["nobody was killed in the session"] += not any(killed)

    def command(
        self, oracle: Oracle, command: Command, events: list[Event], was_killed: set[int], halted: set[int]
    ) -> None:
        first = events[0] if events else None
        if first is None:
            return
        if command.kind in (CommandKind.HALT, CommandKind.KILL):
            named = command.instrument if command.kind == CommandKind.HALT else command.account
            outcome = Reason(first.reason).name if first.kind == EventKind.ORDER_REJECTED else "done"
            what = "all" if named == NOBODY else "one"
            self.counts[f"{CommandKind(command.kind).name} of {what}: {outcome}"] += 1
        if first.reason == Reason.IS_KILLED and command.kind != CommandKind.KILL:
            self.counts[f"{CommandKind(command.kind).name} of a killed participant"] += 1
        if command.account in was_killed and command.kind in (*ORDER_COMMANDS, *REQUEST_COMMANDS):  # noqa: SIM102
            if first.reason == Reason.UNKNOWN_ORDER and command.kind == CommandKind.CANCEL_ORDER:
                self.counts["a cancel of a killed participant"] += 1
        if command.kind == CommandKind.PLACE_ORDER and command.instrument in halted:
            if first.kind == EventKind.ORDER_ACCEPTED:
                self.counts[f"in a halt, accepted: {Side(command.side).name}"] += 1
            elif first.reason == Reason.NOT_RISK_REDUCING:
                self.counts["in a halt, not reducing"] += 1
            elif first.reason not in (Reason.HALTED, Reason.IS_KILLED):
                self.counts["in a halt, reducing but refused"] += 1

    def event(self, oracle: Oracle, command: Command, event: Event, was_killed: set[int]) -> None:
        if event.kind == EventKind.INSTRUMENT_HALTED:
            trigger, action = Trigger(event.reason).name, BreakerAction(event.maker_leaves_lots).name
            self.counts[f"trigger {trigger}"] += 1
            self.counts[f"action {action}"] += 1
            if event.reason < Trigger.SUPERVISOR:
                own_sequence = event.maker_order_id == event.sequence
                self.counts["evidence: this command" if own_sequence else "evidence: an earlier one"] += 1
            if event.account == oracle.participants + SystemAccount.INSURANCE_FUND:
                self.counts["a sale of the insurance fund trips"] += 1
            breaker = oracle.instruments[event.instrument].settings.breaker
            if event.reason == Trigger.LIQUIDATIONS:
                of_market = event.threshold != breaker.liquidations
                self.counts["LIQUIDATIONS of the market" if of_market else "LIQUIDATIONS of an instrument"] += 1
            if event.reason == Trigger.LIQUIDATION_NOTIONAL:
                of_market = event.threshold != breaker.liquidation_notional
                self.counts["notional of the market" if of_market else "notional of an instrument"] += 1
            if event.account in was_killed:
                self.counts["a killed participant's liquidation trips"] += 1
            if command.kind == CommandKind.TIMER:
                self.counts["a batch trips"] += 1
            if event.reason == Trigger.IMBALANCE:
                self.counts[f"imbalance: {Side(event.side).name}"] += 1
            if event.reason == Trigger.DEPTH:
                self.counts[f"depth: {Side(event.side).name}"] += 1
        elif event.kind == EventKind.PARTICIPANTS_KILLED:
            by = "a supervisor" if event.reason == Trigger.SUPERVISOR else "the breaker"
            self.counts[f"{'all' if event.account == NOBODY else 'one'} killed by {by}"] += 1
            self.counts["killed with orders"] += event.threshold > 0
            self.counts["none left to kill"] += event.quantity_lots == 0
            if command.kind == CommandKind.REPLACE_ORDER:
                self.counts["killed for a replacement"] += 1
            if command.kind == CommandKind.REVALUE:
                self.counts["killed for a liquidation"] += 1
        elif event.kind == EventKind.THRESHOLD_PUBLISHED:
            self.counts[f"threshold of {Trigger(event.reason).name}"] += 1
        elif event.kind == EventKind.AUCTION_EXTENDED:
            self.counts["extended"] += 1


EXPECTED = (
    *(f"trigger {each.name}" for each in Trigger),
    *(f"action {each.name}" for each in BreakerAction),
    *(f"threshold of {each.name}" for each in Trigger if each < Trigger.SUPERVISOR),
    *("HALT of one: done", "HALT of all: done", "HALT of one: HALTED", "HALT of one: UNKNOWN_INSTRUMENT"),
    *("KILL of one: done", "KILL of all: done", "KILL of one: IS_KILLED", "KILL of one: UNKNOWN_ACCOUNT"),
    *("one killed by the breaker", "all killed by the breaker", "one killed by a supervisor"),
    *("all killed by a supervisor", "killed with orders", "killed for a replacement", "killed for a liquidation"),
    *(f"{each.name} of a killed participant" for each in (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER)),
    *("LOG_ON of a killed participant", "a cancel of a killed participant", "none left to kill"),
    *(f"{each} of a killed participant" for each in ("REDEEM", "BORROW", "LIQUIDATE")),
    *("in a halt, accepted: BUY", "in a halt, accepted: SELL", "in a halt, not reducing"),
    "in a halt, reducing but refused",
    *("extended", "extended, then cleared", "extended, then nothing", "extended as often as allowed"),
    *("evidence: this command", "evidence: an earlier one", "an expiring order waits in a halt"),
    *("imbalance: BUY", "imbalance: SELL", "depth: BUY", "depth: SELL", "a batch trips"),
    *("LIQUIDATIONS of the market", "LIQUIDATIONS of an instrument", "notional of the market"),
    *("notional of an instrument", "a sale of the insurance fund trips", "a killed participant's liquidation trips"),
)


def test_sessions_reach_every_rule_of_the_breaker() -> None:
    reached = Reached()
    for seed in SEEDS:
        reached.session(seed, money=False)
        reached.session(seed, money=True)
    counts = reached.counts
    assert not [name for name in EXPECTED if not counts[name]], counts
    # Kills are rare, and late: else there is nothing to compare.
    assert counts["nobody was killed in the session"] > 0.6 * 2 * len(SEEDS), counts


@pytest.mark.parametrize("trigger", [Trigger.SELL_VOLUME, pytest.param(Trigger.IMBALANCE, marks=pytest.mark.slow)])
def test_a_full_window_lets_the_newest_entry_take_in_what_comes(trigger: Trigger) -> None:
    # One lot a nanosecond in a window of 5,000 ns, which so could hold 5,000 lots and never trip. The 4,096th entry
    # takes in the lots of 4,096 to 5,000 ns. Until 9,095 one lot goes as one comes; then there are 4,096 entries again,
    # the 905 lots would go at 10,000, and each new lot is one more: at 9,595 the 500th.
    breaker = {
        Trigger.SELL_VOLUME: BreakerConfig(sell_volume_lots=5_500, sell_window_ns=5_000),
        Trigger.IMBALANCE: BreakerConfig(imbalance_bps=10_000, imbalance_lots=5_500, imbalance_window_ns=5_000),
    }[trigger]
    config = exchange(market(breaker=breaker, max_quantity_lots=2**20))
    commands = [
        operator(CommandKind.DEPOSIT_CASH, 0, 0, 10**9),
        operator(CommandKind.DEPOSIT_POSITION, 1, 0, 10**6),
        operator(CommandKind.OPEN_SESSION),
        place(0, 1, Side.BUY, 10**6, 50),
        *[place(1, number, Side.SELL, 1, 50, at=number) for number in range(1, 9_800)],
    ]
    oracle, events = _both(config, commands)
    (halt,) = [event for event in events if event.kind == EventKind.INSTRUMENT_HALTED]
    assert (halt.reason, halt.time_ns, halt.maker_order_id) == (trigger, 9_595, 4 + 4_096)
    assert oracle.instruments[0].phase == Phase.HALTED


@pytest.mark.parametrize(
    ("settings", "trigger", "observed"),
    [
        ({"liquidations": 2}, Trigger.LIQUIDATIONS, 2),
        ({"liquidation_notional": 1_750}, Trigger.LIQUIDATION_NOTIONAL, 1_800),
    ],
)
def test_the_market_remembers_liquidations_beyond_a_reopening(
    settings: dict[str, Any], trigger: Trigger, observed: int
) -> None:
    # Both hold 10 lots, with 900 and 850 of debt. At 94 the first has 40, less than 5 % of 940; it sells at 90. At 89
    # the second has 40, less than 5 % of 890; it would sell at 90 too.
    config = EngineConfig(
        instruments=(
            market(
                initial_margin_bps=1_000,
                maintenance_margin_bps=500,
                breaker=BreakerConfig(halt_ns=1, reopening_auction_ns=1),
            ),
        ),
        accounts=3,
        max_orders=10,
        margin=MarginConfig(mark="index"),
        market_breaker=MarketBreakerConfig(**settings, liquidation_window_ns=10**9),
    )
    commands = [operator(CommandKind.PUBLISH_INDEX, 0, 0, 100)]
    for account, debt in ((0, 900), (1, 850)):
        commands.append(operator(CommandKind.SET_MARGIN, account, 0, 1))
        commands.append(operator(CommandKind.DEPOSIT_POSITION, account, 0, 10))
        commands.append(operator(CommandKind.WITHDRAW_CASH, account, 0, debt))
    commands += [
        operator(CommandKind.DEPOSIT_CASH, 2, 0, 10_000),
        operator(CommandKind.OPEN_SESSION),
        place(2, 1, Side.BUY, 100, 90),
        operator(CommandKind.PUBLISH_INDEX, 0, 0, 94),
        operator(CommandKind.REVALUE, NOBODY, NOBODY, at=10 * MS),
        operator(CommandKind.HALT, 0, 0, at=20 * MS),
        operator(CommandKind.TIMER, NOBODY, 0, at=30 * MS),
        operator(CommandKind.TIMER, NOBODY, 0, at=40 * MS),
        operator(CommandKind.PUBLISH_INDEX, 0, 0, 89, at=50 * MS),
        operator(CommandKind.REVALUE, NOBODY, NOBODY, at=60 * MS),
    ]
    _, events = _both(config, commands)
    first, second = [event for event in events if event.kind == EventKind.INSTRUMENT_HALTED]
    assert first.reason == Trigger.SUPERVISOR
    assert (second.account, second.reason, second.value, second.maker_order_id) == (1, trigger, observed, 12)
    assert second.maker_leaves_lots == BreakerAction.HALT_MARKET


def _both(config: EngineConfig, commands: list[Command]) -> tuple[Oracle, list[Event]]:
    """Run both, and return the oracle and the events, which are equal."""
    numbered = [command._replace(sequence=sequence) for sequence, command in enumerate(commands, start=1)]
    oracle, engine = Oracle(config), Engine(config)
    expected = [event for command in numbered for event in oracle.apply(command)]
    actual = apply_in_batches(engine, np.array([tuple(command) for command in numbered], COMMAND))
    assert actual == expected
    assert engine.state_hash() == oracle.state_hash()
    return oracle, list(map(Event._make, expected))
