"""The oracle of docs/admission.md: what its random sessions reach, a window of the flow that is full, and what accounts
are worth at the edges of their numbers."""

from collections import Counter

import numpy as np
import pytest

from exchange.config import AdmissionConfig
from exchange.engine import Engine
from exchange.types import (
    COMMAND,
    BreakerAction,
    CommandKind,
    EventKind,
    OrderType,
    Phase,
    Reason,
    Trigger,
)
from tests.comparison import apply_in_batches, session_of
from tests.oracle import Oracle
from tests.oracle_admission import MOST_ORDERS, Entered
from tests.oracle_records import Command, Event
from tests.scenario_parts import BUY, IOC, SELL, exchange, market, operator, place

SEEDS = range(80)
COMMANDS = 600


class Reached:
    """What happened in some sessions, by name."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def session(self, seed: int, money: bool) -> None:
        session = session_of(seed, COMMANDS, money)
        oracle = Oracle(session.oracle.config)
        fills = 0
        for record in session.commands:
            command = Command(*record.item())
            before = [(each.logged_on, each.vendor, each.killed) for each in oracle.accounts]
            entered = oracle.admission.flow
            events = [Event._make(event) for event in oracle.apply(command)]
            fills += sum(event.kind == EventKind.ORDER_FILLED for event in events)
            if command.kind == CommandKind.LOG_ON and oracle.account_exists(command.account):
                self.log_on(oracle, command, events[0], before[command.account])
            elif command.kind in (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER):
                self.order(oracle, command, events[0])
                if oracle.admission.flow is entered:
                    self.takes_nothing(oracle, command, events)
            elif command.kind == CommandKind.EXPLAIN:
                known = oracle.account_exists(command.account)
                self.counts["EXPLAIN of an account" if known else "EXPLAIN of nobody"] += not events
            elif command.kind == CommandKind.KILL_VENDOR:
                self.counts[f"KILL_VENDOR: {EventKind(events[-1].kind).name}"] += 1
            for event in events:
                self.event(oracle, command, event, before)
            if oracle.admission.flow is not entered:
                self.flow(oracle, command, events, entered)
        if oracle.config.admission:
            self.counts["venues with admission"] += 1
            self.counts["venues with admission that traded"] += fills >= 5

    def log_on(self, oracle: Oracle, command: Command, event: Event, before: tuple[int, int, int]) -> None:
        was_logged_on, old_vendor, _ = before
        account = oracle.accounts[command.account]
        if event.kind == EventKind.ORDER_REJECTED:
            reason = Reason(event.reason).name
            if event.reason == Reason.MALFORMED and 0 <= command.quantity_lots <= 5:
                reason = "numbers"
            self.counts[f"LOG_ON: {reason}"] += 1
            if was_logged_on:
                self.counts["a logon fails and the session stands"] += account.logged_on
            if event.reason == Reason.VENDOR_AGENTS_CAP:
                assert oracle.config.admission
                cap = oracle.config.admission.vendor_agents_bps * oracle.participants
                present, _ = self.others(oracle, command.account, command.target_order_id)
                self.counts["refused only for who is away with orders"] += (1 + present) * 10_000 <= cap
            return
        self.counts["LOG_ON: a vendor" if account.vendor else "LOG_ON: no vendor"] += 1
        settings = oracle.config.admission
        if was_logged_on and account.vendor != old_vendor:
            self.counts["another vendor while logged on, without admission"] += 1
            assert settings is None
        if settings and account.vendor and settings.vendor_agents_bps:
            present, resting = self.others(oracle, command.account, account.vendor)
            exact = (1 + present + resting) * 10_000 == settings.vendor_agents_bps * oracle.participants
            self.counts["exactly as many as the cap"] += exact

    def others(self, oracle: Oracle, account: int, vendor: int) -> tuple[int, int]:
        """How many others of a vendor are logged on, and how many are not and have orders that rest."""
        others = [number for number in range(oracle.participants) if number != account]
        members = [number for number in others if oracle.accounts[number].vendor == vendor]
        absent = [number for number in members if not oracle.accounts[number].logged_on]
        return len(members) - len(absent), sum(bool(oracle.resting_of(number)) for number in absent)

    def order(self, oracle: Oracle, command: Command, event: Event) -> None:
        kind = CommandKind(command.kind).name
        if event.kind == EventKind.ORDER_REJECTED:
            if event.reason in (Reason.NOT_LOGGED_ON, Reason.UNEXPLAINED):
                self.counts[f"{kind}: {Reason(event.reason).name}"] += 1
            if event.reason == Reason.UNEXPLAINED:
                order_id, rule = oracle.accounts[command.account].explained
                self.counts["explained: another order"] += order_id != command.order_id and rule == command.rule
                self.counts["explained: another rule"] += order_id == command.order_id and rule != command.rule
            if event.reason == Reason.VENDOR_FLOW_CAP:
                of = OrderType(command.order_type).name if command.kind == CommandKind.PLACE_ORDER else kind
                self.counts[f"{of}: VENDOR_FLOW_CAP"] += 1
        elif oracle.config.explanations_required:
            self.counts[f"{kind}: explained"] += 1

    def takes_nothing(self, oracle: Oracle, command: Command, events: list[Event]) -> None:
        """Accepted without a look at the flow, where there is a cap."""
        settings, accepted = oracle.config.admission, events[0]
        goes_to_the_back = accepted.kind == EventKind.ORDER_ACCEPTED or accepted.reason == Reason.LOST_PRIORITY
        if not (settings and settings.vendor_flow_bps and goes_to_the_back):
            return
        if oracle.instruments[command.instrument].phase != Phase.CONTINUOUS:
            return
        assert all(event.kind != EventKind.ORDER_FILLED for event in events)
        if command.kind == CommandKind.REPLACE_ORDER:
            self.counts["takes nothing: a replacement"] += 1
            return
        self.counts[f"takes nothing: {OrderType(command.order_type).name}"] += 1
        if command.order_type == OrderType.FOK and oracle.reachable_ticks(command, command.side) is not None:
            self.counts["takes nothing: a FOK that could take a part"] += 1

    def flow(self, oracle: Oracle, command: Command, events: list[Event], entered: list[Entered]) -> None:
        flow = oracle.admission.flow
        self.counts["an order leaves the window"] += any(each not in flow for each in entered)
        if not flow or flow[-1].time_ns != command.received_ns or (entered and flow[-1] is entered[-1]):
            return
        latest, settings = flow[-1], oracle.config.admission
        self.counts["entered of a vendor" if latest.vendor else "entered of no vendor"] += 1
        takes = [event for event in events if event.kind == EventKind.ORDER_FILLED]
        self.counts["entered: more than one level"] += len({event.price_ticks for event in takes}) > 1
        multiplier = oracle.instruments[command.instrument].settings.multiplier
        taken = sum(event.price_ticks * event.quantity_lots for event in takes) * multiplier
        self.counts["entered: exactly what it took"] += latest.value == taken
        self.counts["entered: more than it took"] += latest.value > taken
        self.counts["entered: a replacement"] += command.kind == CommandKind.REPLACE_ORDER
        of_vendor = sum(each.value for each in flow if each.vendor == latest.vendor)
        assert settings is not None
        if latest.vendor and of_vendor * 10_000 > settings.vendor_flow_bps * sum(each.value for each in flow):
            self.counts["entered: above the share, below the floor"] += 1

    def event(self, oracle: Oracle, command: Command, event: Event, before: list[tuple[int, int, int]]) -> None:
        if event.kind == EventKind.PARTICIPANTS_KILLED:
            action = BreakerAction(event.maker_leaves_lots)
            by = "a supervisor" if event.reason == Trigger.SUPERVISOR else "the breaker"
            self.counts[f"{action.name} by {by}"] += 1
            if action == BreakerAction.KILL_VENDOR:
                members = [each for each in before[: oracle.participants] if each[1] == event.value]
                self.counts["a vendor's several"] += event.quantity_lots > 1
                self.counts["a vendor's, logged off"] += any(not each[0] and not each[2] for each in members)
                self.counts["a vendor's, killed before"] += any(each[2] for each in members)
                self.counts["others than the vendor's live on"] += any(
                    not each.killed for each in oracle.accounts[: oracle.participants]
                )
                self.counts["a vendor, for a liquidation"] += command.kind == CommandKind.REVALUE
        elif event.kind == EventKind.INSTRUMENT_HALTED and event.reason < Trigger.SUPERVISOR:  # noqa: SIM102
            if oracle.instruments[event.instrument].settings.breaker.action == "kill_vendor":
                action = BreakerAction(event.maker_leaves_lots)
                self.counts[f"kill_vendor comes to {action.name}"] += 1
                if action == BreakerAction.HALT:
                    self.counts[
                        "kill_vendor of a batch" if event.account < 0 else "kill_vendor of the venue's own"
                    ] += 1


EXPECTED = (
    *("LOG_ON: a vendor", "LOG_ON: no vendor", "LOG_ON: numbers", "LOG_ON: MALFORMED", "LOG_ON: IS_KILLED"),
    *("LOG_ON: UNDECLARED", "LOG_ON: NOT_VALIDATED", "LOG_ON: VENDOR_AGENTS_CAP", "LOG_ON: VENDOR_CAPITAL_CAP"),
    *("a logon fails and the session stands", "LOG_ON: DECLARED_OTHERWISE", "exactly as many as the cap"),
    *("another vendor while logged on, without admission", "refused only for who is away with orders"),
    *("PLACE_ORDER: NOT_LOGGED_ON", "REPLACE_ORDER: NOT_LOGGED_ON", "PLACE_ORDER: UNEXPLAINED"),
    *("REPLACE_ORDER: UNEXPLAINED", "explained: another order", "explained: another rule", "PLACE_ORDER: explained"),
    *("REPLACE_ORDER: explained", "EXPLAIN of an account", "EXPLAIN of nobody"),
    *(f"{each.name}: VENDOR_FLOW_CAP" for each in OrderType if each != OrderType.POST_ONLY),
    *("REPLACE_ORDER: VENDOR_FLOW_CAP", "entered of a vendor", "entered of no vendor", "an order leaves the window"),
    *("entered: more than one level", "entered: a replacement", "entered: exactly what it took"),
    *("entered: more than it took", "entered: above the share, below the floor"),
    *(f"takes nothing: {each.name}" for each in OrderType),
    *("takes nothing: a replacement", "takes nothing: a FOK that could take a part"),
    *("KILL_VENDOR: PARTICIPANTS_KILLED", "KILL_VENDOR: ORDER_REJECTED", "KILL_VENDOR by a supervisor"),
    *("KILL_VENDOR by the breaker", "a vendor's several", "a vendor's, logged off", "a vendor's, killed before"),
    *("others than the vendor's live on", "a vendor, for a liquidation", "kill_vendor comes to KILL_VENDOR"),
    *("kill_vendor comes to KILL_PARTICIPANT", "kill_vendor comes to HALT", "kill_vendor of a batch"),
)


def test_sessions_reach_every_rule_of_admission() -> None:
    reached = Reached()
    for seed in SEEDS:
        reached.session(seed, money=False)
        reached.session(seed, money=True)
    counts = reached.counts
    assert not [name for name in EXPECTED if not counts[name]], counts
    # Where all are refused there is nothing to compare.
    assert counts["venues with admission"] > 0.25 * 2 * len(SEEDS), counts
    assert counts["venues with admission that traded"] > 0.6 * counts["venues with admission"], counts


def numbered(commands: list[Command]) -> list[Command]:
    return [each._replace(sequence=number) for number, each in enumerate(commands, start=1)]


def declared(account: int, vendor: int) -> Command:
    return operator(CommandKind.LOG_ON, account)._replace(target_order_id=vendor)


def test_a_full_window_of_the_flow_makes_room_before_an_order_is_asked_about() -> None:
    # 10,000 by no vendor, then 65,535 orders of 1: the window is full. The 10,000 make room, and 65,536 of vendor 1 are
    # more than half of all; with the 10,000 they would not be. 65,535 are exactly half, and the window is full again.
    # One of the 65,535 makes room, and 65,536 of vendor 1 are more than half of 131,070.
    config = exchange(
        market(max_quantity_lots=2**20),
        admission=AdmissionConfig(vendor_flow_bps=5_000, flow_window_ns=10**9),
    )
    first = [
        operator(CommandKind.DEPOSIT_CASH, 0, 0, 10**6),
        operator(CommandKind.DEPOSIT_CASH, 1, 0, 10**6),
        operator(CommandKind.DEPOSIT_POSITION, 2, 0, 2**20),
        declared(0, 0),
        declared(1, 1),
        declared(2, 2),
        operator(CommandKind.OPEN_SESSION),
        place(2, 1, SELL, 2**20, 1),
    ]
    filling = [place(0, 1, BUY, 10_000, 1, IOC)]
    filling += [place(0, number, BUY, 1, 1, IOC) for number in range(2, MOST_ORDERS + 1)]
    last = [place(1, 1, BUY, 65_536, 1, IOC), place(1, 2, BUY, 65_535, 1, IOC), place(1, 3, BUY, 1, 1, IOC)]
    commands = numbered([*first, *filling, *last])
    engine, oracle = Engine(config), Oracle(config)
    actual = apply_in_batches(engine, np.array([tuple(command) for command in commands], COMMAND))
    for command in commands[: len(first)]:
        oracle.apply(command)
    # One after the other they would take the oracle minutes: one order for all of them, and what the window holds then.
    oracle.apply(place(0, MOST_ORDERS, BUY, 10_000 + MOST_ORDERS - 1, 1, IOC)._replace(sequence=commands[-4].sequence))
    oracle.admission.flow = [Entered(0, 0, 10_000), *[Entered(0, 0, 1)] * (MOST_ORDERS - 1)]
    expected = [event for command in commands[-3:] for event in oracle.apply(command)]
    assert [event for event in actual if event[0] >= commands[-3].sequence] == expected
    kinds = [event[1] for event in expected]
    rejected = EventKind.ORDER_REJECTED
    assert kinds == [rejected, EventKind.ORDER_ACCEPTED, EventKind.ORDER_FILLED, rejected]


@pytest.mark.parametrize(
    ("cash", "lots", "price_ticks", "worth"),
    [
        (3, 2**30, 0, 3),
        (5, -1, 10, 0),
        (-5, 2**40, 2**18 - 1, 2**42 - 5),
        (2**42 + 7, -(2**19), 2**13, 7),
        (2**42 + 7, -(2**19) - 1, 2**13, 7),
        (2**42 + 7, -(2**36), 2**18 - 1, 7),  # its value is beyond 64 bits
        (2**43, -(2**36), 2**18 - 1, 2**42),
        (2**50, 1, 1, 2**42),
    ],
)
def test_what_lots_are_worth_is_bounded_before_it_is_added(cash: int, lots: int, price_ticks: int, worth: int) -> None:
    # Half of two accounts' capital is not below its own exactly if the other has as much.
    config = exchange(
        market(price_levels=2**18, multiplier=1_024),
        accounts=2,
        admission=AdmissionConfig(vendor_capital_bps=5_000),
    )
    for other, kind in ((worth, EventKind.LOGGED_ON), (worth - 1, EventKind.ORDER_REJECTED)):
        if other < 0:
            continue
        engine, oracle = Engine(config), Oracle(config)
        engine.state.accounts["cash"][:2] = (other, cash)
        engine.state.positions[1][0]["quantity_lots"] = lots
        engine.state.instruments[0]["last_ticks"] = price_ticks
        oracle.accounts[0].cash, oracle.accounts[1].cash = other, cash
        oracle.accounts[1].positions[0].quantity_lots = lots
        oracle.instruments[0].last_ticks = price_ticks
        [command] = numbered([declared(1, 1)])
        expected = oracle.apply(command)
        assert apply_in_batches(engine, np.array([tuple(command)], COMMAND)) == expected
        assert expected[0][1] == kind
