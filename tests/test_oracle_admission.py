"""The oracle of docs/admission.md: what its random sessions reach, and a window of the flow that is full."""

from collections import Counter

import numpy as np

from exchange.config import AdmissionConfig
from exchange.engine import Engine
from exchange.types import (
    COMMAND,
    BreakerAction,
    CommandKind,
    EventKind,
    OrderType,
    Reason,
    Trigger,
)
from tests.comparison import apply_in_batches, session_of
from tests.oracle import Oracle
from tests.oracle_admission import MOST_ORDERS, MOST_WORTH, Entered
from tests.oracle_records import Command, Event
from tests.scenario_parts import BUY, IOC, exchange, market, operator, place

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
            elif command.kind == CommandKind.EXPLAIN:
                known = oracle.account_exists(command.account)
                self.counts["EXPLAIN of an account" if known else "EXPLAIN of nobody"] += not events
            elif command.kind == CommandKind.KILL_VENDOR:
                self.counts[f"KILL_VENDOR: {EventKind(events[-1].kind).name}"] += 1
            for event in events:
                self.event(oracle, command, event, before)
            if oracle.admission.flow is not entered:
                self.flow(oracle, command, entered)
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
            return
        self.counts["LOG_ON: a vendor" if account.vendor else "LOG_ON: no vendor"] += 1
        if was_logged_on and account.vendor != old_vendor:
            self.counts["another vendor while logged on"] += 1
        settings = oracle.config.admission
        if settings and account.vendor and settings.vendor_agents_bps:
            participants = oracle.accounts[: oracle.participants]
            members = sum(each.logged_on and each.vendor == account.vendor for each in participants)
            exact = members * 10_000 == settings.vendor_agents_bps * oracle.participants
            self.counts["exactly as many as the cap"] += exact

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

    def flow(self, oracle: Oracle, command: Command, entered: list[Entered]) -> None:
        flow = oracle.admission.flow
        self.counts["an order leaves the window"] += any(each not in flow for each in entered)
        if not flow or flow[-1].time_ns != command.received_ns or (entered and flow[-1] is entered[-1]):
            return
        latest, settings = flow[-1], oracle.config.admission
        self.counts["entered of a vendor" if latest.vendor else "entered of no vendor"] += 1
        self.counts["entered: the most that an order is worth"] += latest.value == MOST_WORTH
        self.counts["entered: worth nothing"] += latest.value == 0
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
    *("a logon fails and the session stands", "another vendor while logged on", "exactly as many as the cap"),
    *("PLACE_ORDER: NOT_LOGGED_ON", "REPLACE_ORDER: NOT_LOGGED_ON", "PLACE_ORDER: UNEXPLAINED"),
    *("REPLACE_ORDER: UNEXPLAINED", "explained: another order", "explained: another rule", "PLACE_ORDER: explained"),
    *("REPLACE_ORDER: explained", "EXPLAIN of an account", "EXPLAIN of nobody"),
    *(f"{each.name}: VENDOR_FLOW_CAP" for each in OrderType if each != OrderType.POST_ONLY),
    *("REPLACE_ORDER: VENDOR_FLOW_CAP", "entered of a vendor", "entered of no vendor", "an order leaves the window"),
    *("entered: the most that an order is worth", "entered: worth nothing", "entered: a replacement"),
    "entered: above the share, below the floor",
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


def test_a_full_window_of_the_flow_makes_room_before_an_order_is_asked_about() -> None:
    # 10,000 by no vendor, then 65,535 orders of 1: the window is full. The 10,000 make room, and 65,536 of vendor 1 are
    # more than half of all; with the 10,000 they would not be. 65,535 are exactly half, and the window is full again.
    # One of the 65,535 makes room, and 65,536 of vendor 1 are more than half of 131,070.
    config = exchange(
        market(price_levels=65_536, max_quantity_lots=2**20),
        admission=AdmissionConfig(vendor_flow_bps=5_000, flow_window_ns=10**9),
    )
    declared = operator(CommandKind.LOG_ON, 1)._replace(target_order_id=1)
    first = [
        operator(CommandKind.DEPOSIT_CASH, 0, 0, 10**9),
        operator(CommandKind.DEPOSIT_CASH, 1, 0, 10**9),
        operator(CommandKind.LOG_ON, 0),
        declared,
        operator(CommandKind.OPEN_SESSION),
    ]
    filling = [place(0, 1, BUY, 1, 10_000, IOC)]
    filling += [place(0, number, BUY, 1, 1, IOC) for number in range(2, MOST_ORDERS + 1)]
    last = [place(1, 1, BUY, 2, 32_768, IOC), place(1, 2, BUY, 3, 21_845, IOC), place(1, 3, BUY, 1, 1, IOC)]
    commands = [each._replace(sequence=number) for number, each in enumerate([*first, *filling, *last], start=1)]
    engine, oracle = Engine(config), Oracle(config)
    actual = apply_in_batches(engine, np.array([tuple(command) for command in commands], COMMAND))
    for command in commands[: len(first)]:
        oracle.apply(command)
    # One after the other they would take the oracle minutes.
    oracle.admission.flow = [Entered(0, 0, 10_000), *[Entered(0, 0, 1)] * (MOST_ORDERS - 1)]
    expected = [event for command in commands[-3:] for event in oracle.apply(command)]
    assert [event for event in actual if event[0] >= commands[-3].sequence] == expected
    kinds = [event[1] for event in expected]
    rejected = EventKind.ORDER_REJECTED
    assert kinds == [rejected, EventKind.ORDER_ACCEPTED, EventKind.ORDER_CANCELLED, rejected]
