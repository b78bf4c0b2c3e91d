"""Scenarios of docs/admission.md, worked out by hand. See `tests.scenarios`."""

from exchange.config import AdmissionConfig, EngineConfig, MarketBreakerConfig
from exchange.types import BreakerAction, CommandKind, EventKind, Phase, Reason, Trigger
from tests.oracle_records import Command, Event
from tests.scenario_parts import (
    BUY,
    FOK,
    IOC,
    MARKET,
    SELL,
    Breaker,
    Scenario,
    accepted,
    cancel,
    cancel_rejected,
    cancelled,
    exchange,
    filled,
    halted,
    log_off,
    market,
    operator,
    phase,
    place,
    rejected,
    repeated,
    replace,
    replaced,
)

KILL_VENDOR = CommandKind.KILL_VENDOR


def declare(account: int, vendor: int = 0, model: int = 0, version: int = 0, flags: int = 0) -> Command:
    command = operator(CommandKind.LOG_ON, account, -1, flags)
    return command._replace(target_order_id=vendor, order_type=model, price_ticks=version)


def explain(account: int, order_id: int, rule: int) -> Command:
    """The nine words are nobody's business."""
    command = Command(0, CommandKind.EXPLAIN, account, -5, order_id, -6, -7, -8, -9, -10, rule=rule)
    return command._replace(heard_ns=11, sent_ns=12, cause_sequence=13)


def of_rule(rule: int, command: Command) -> Command:
    return command._replace(rule=rule)


def logged_on(
    sequence: int, account: int, vendor: int = 0, model: int = 0, version: int = 0, flags: int = 0, last: int = 0
) -> Event:
    return Event(
        *(sequence, EventKind.LOGGED_ON, 0, -1, account, last),
        price_ticks=version,
        leaves_lots=model,
        maker_order_id=vendor,
        value=flags,
    )


def logged_off(sequence: int, account: int) -> Event:
    return Event(sequence, EventKind.LOGGED_OFF, 0, -1, account)


def refused(sequence: int, account: int, reason: Reason, flags: int = 0, instrument: int = -1) -> Event:
    return Event(sequence, EventKind.ORDER_REJECTED, 0, instrument, account, quantity_lots=flags, reason=reason)


def killed(sequence: int, action: BreakerAction, named: int, participants: int, orders: int, trigger: Trigger) -> Event:
    return Event(
        *(sequence, EventKind.PARTICIPANTS_KILLED, 0, -1),
        account=named if action == BreakerAction.KILL_PARTICIPANT else -1,
        quantity_lots=participants,
        maker_leaves_lots=action,
        reason=trigger,
        value=named,
        threshold=orders,
    )


def admitting(**settings: object) -> EngineConfig:
    return exchange(admission=AdmissionConfig.model_validate(settings))


_SELLS = Breaker(sell_volume_lots=5, sell_window_ns=100, action="kill_vendor")

ADMISSION_SCENARIOS = [
    Scenario(
        # Half of four accounts are two. That one is there already is not counted against it.
        "a logon's first check that fails is the one reported, and a session stands with the model that it had",
        [
            declare(9, -1, flags=6),
            declare(0, 1024, flags=6),
            declare(0, 1024, 1, 2),
            declare(0, 5, -1, 2),
            declare(0, 5, 1, 2**31),
            declare(0, 0, 1, 2),
            declare(0, 5, 1, 3),
            declare(0, 5, 1, 2, flags=5),
            declare(0, 5, 2, 2, flags=1),
            place(0, 1, BUY, 1, 50),
            place(1, 1, BUY, 1, 50, instrument=9),
            declare(1, 5, 1, 2),
            declare(2, 5, 1, 2),
            declare(1, 5, 1, 2, flags=2),
            log_off(1),
            declare(2, 5, 1, 2),
            operator(CommandKind.KILL, 0),
            declare(3, 5, 1, 2),
            declare(0, 1024),
            declare(1, 5, 1, 2),
        ],
        [
            refused(10, 9, Reason.UNKNOWN_ACCOUNT, 6),
            refused(11, 0, Reason.MALFORMED, 6),
            refused(12, 0, Reason.MALFORMED),
            refused(13, 0, Reason.MALFORMED),
            refused(14, 0, Reason.MALFORMED),
            refused(15, 0, Reason.UNDECLARED),
            refused(16, 0, Reason.NOT_VALIDATED),
            logged_on(17, 0, 5, 1, 2, 5),
            refused(18, 0, Reason.NOT_VALIDATED, 1),
            accepted(19, 0, 1, BUY, 50, 1),
            rejected(20, 1, 1, BUY, 50, 1, Reason.NOT_LOGGED_ON, instrument=9),
            logged_on(21, 1, 5, 1, 2, last=1),
            refused(22, 2, Reason.VENDOR_AGENTS_CAP),
            logged_on(23, 1, 5, 1, 2, 2, last=1),
            logged_off(24, 1),
            logged_on(25, 2, 5, 1, 2),
            cancelled(26, (0, 1, BUY), 50, 1, Reason.KILLED),
            killed(26, BreakerAction.KILL_PARTICIPANT, 0, 1, 1, Trigger.SUPERVISOR),
            logged_on(27, 3, 5, 1, 2),
            refused(28, 0, Reason.IS_KILLED),
            refused(29, 1, Reason.VENDOR_AGENTS_CAP),
        ],
        admitting(declaration_required=True, validated=((5, 1, 2),), vendor_agents_bps=5_000),
    ),
    Scenario(
        # At 100, everybody is worth 20,000: half of all are two. With 3 more for account 2 they are 40,003 of 80,003,
        # whose share is 40,001; with 4 more for account 1 it is 40,003. Ten lots of instrument 1 are worth nothing
        # until there is a price: then 500, and the share of 80,507 is 40,253.
        "capital is cash and what the lots are worth, at the last price or before it at the index",
        [
            declare(0, 0, 7, 8),
            declare(1),
            place(1, 1, SELL, 10, 100),
            place(0, 1, BUY, 10, 100),
            declare(0, 3),
            declare(2, 3),
            operator(CommandKind.DEPOSIT_CASH, 2, 0, 3),
            declare(2, 3, 1, 1),
            operator(CommandKind.DEPOSIT_CASH, 1, 0, 4),
            declare(2, 3, 1, 2),
            operator(CommandKind.DEPOSIT_POSITION, 2, 1, 10),
            declare(2, 3),
            operator(CommandKind.PUBLISH_INDEX, 0, 1, 50),
            declare(2, 3),
            log_off(0),
            declare(2, 3),
        ],
        [
            logged_on(10, 0, 0, 7, 8),
            logged_on(11, 1),
            accepted(12, 1, 1, SELL, 100, 10),
            accepted(13, 0, 1, BUY, 100, 10),
            filled(13, (0, 1, BUY), 100, 10, 0, (1, 1), 0),
            logged_on(14, 0, 3, last=1),
            logged_on(15, 2, 3),
            Event(16, EventKind.CASH_DEPOSITED, 0, account=2, quantity_lots=3),
            refused(17, 2, Reason.VENDOR_CAPITAL_CAP),
            Event(18, EventKind.CASH_DEPOSITED, 0, account=1, quantity_lots=4),
            logged_on(19, 2, 3, 1, 2),
            Event(20, EventKind.POSITION_DEPOSITED, 0, 1, 2, quantity_lots=10),
            logged_on(21, 2, 3),
            Event(22, EventKind.INDEX_PUBLISHED, 0, 1, -1, value=50),
            refused(23, 2, Reason.VENDOR_CAPITAL_CAP),
            logged_off(24, 0),
            logged_on(25, 2, 3),
        ],
        exchange(market(), market(), admission=AdmissionConfig(vendor_capital_bps=5_000)),
    ),
    Scenario(
        "an order needs the latest explanation of its account to be its own, before any other check but the rate",
        [
            of_rule(7, place(0, 1, BUY, 5, 50)),
            explain(0, 2, 7),
            of_rule(8, place(0, 2, BUY, 5, 50)),
            explain(0, 3, 7),
            of_rule(7, place(0, 3, BUY, 5, 50)),
            explain(9, 4, 7),
            explain(1, 4, 7),
            of_rule(7, replace(0, 4, 3, 4, 50)),
            explain(0, 5, -1),
            cancel(1, 9),
            of_rule(-1, replace(0, 5, 3, 4, 50)),
            place(0, 5, BUY, 1, 50),
            explain(0, 6, 1),
            explain(0, 7, 1),
            of_rule(1, place(0, 6, BUY, 5, 50, instrument=9)),
            of_rule(1, place(0, 7, BUY, 5, 50, instrument=9)),
        ],
        [
            rejected(10, 0, 1, BUY, 50, 5, Reason.UNEXPLAINED),
            rejected(12, 0, 2, BUY, 50, 5, Reason.UNEXPLAINED),
            accepted(14, 0, 3, BUY, 50, 5),
            rejected(17, 0, 4, BUY, 50, 4, Reason.UNEXPLAINED),
            cancel_rejected(19, 1, 9, 0, Reason.UNKNOWN_ORDER),
            replaced(20, (0, 5, BUY), 3, 50, 4, 4),
            repeated(21, 0, 5, 4, 4, 20),
            rejected(24, 0, 6, BUY, 50, 5, Reason.UNEXPLAINED, instrument=9),
            rejected(25, 0, 7, BUY, 50, 5, Reason.UNKNOWN_INSTRUMENT, instrument=9),
        ],
        exchange(explanations_required=True),
    ),
    Scenario(
        # Of vendor 1 are 0 and 3, of vendor 2 is 1. In the window, of vendor 1 and of all: 500 of 500, 500 of 740, 500
        # of 1,000, of 1,040, of 1,120, 620 of 1,240: exactly half. Refused would have been 510 of 510 (twice), 510 of
        # 1,010, 640 of 1,260; and 640 of 1,260 again 1 ns before all of it leaves the window.
        "a vendor's orders that would take are at most its share of all such, but for the floor",
        [
            declare(0, 1),
            declare(1, 2),
            declare(2),
            declare(3, 1),
            place(2, 1, SELL, 100, 10),
            place(0, 1, BUY, 50, 10, IOC),
            place(0, 2, BUY, 1, 10),
            place(0, 3, BUY, 1, 9),
            place(3, 1, BUY, 1, 10),
            place(1, 1, BUY, 20, 12),
            place(2, 2, BUY, 26, order_type=MARKET),
            place(0, 4, BUY, 1, 10, FOK),
            place(2, 3, BUY, 4, order_type=MARKET),
            place(2, 4, BUY, 30, order_type=MARKET),
            place(2, 5, BUY, 5, 16, IOC),
            place(1, 2, SELL, 30, 20),
            place(0, 6, BUY, 6, 20, IOC),
            replace(0, 7, 3, 1, 20),
            replace(0, 8, 3, 2, 8),
            place(0, 9, BUY, 1, 20, at=99),
            place(0, 10, BUY, 30, 20, at=100),
            replace(0, 11, 8, 25, 20, at=100),
            place(1, 3, SELL, 1, 20, at=100),
        ],
        [
            logged_on(10, 0, 1),
            logged_on(11, 1, 2),
            logged_on(12, 2),
            logged_on(13, 3, 1),
            accepted(14, 2, 1, SELL, 10, 100),
            accepted(15, 0, 1, BUY, 10, 50),
            filled(15, (0, 1, BUY), 10, 50, 0, (2, 1), 50),
            rejected(16, 0, 2, BUY, 10, 1, Reason.VENDOR_FLOW_CAP),
            accepted(17, 0, 3, BUY, 9, 1),
            rejected(18, 3, 1, BUY, 10, 1, Reason.VENDOR_FLOW_CAP),
            accepted(19, 1, 1, BUY, 12, 20),
            filled(19, (1, 1, BUY), 10, 20, 0, (2, 1), 30),
            accepted(20, 2, 2, BUY, 0, 26),
            filled(20, (2, 2, BUY), 10, 26, 0, (2, 1), 4),
            rejected(21, 0, 4, BUY, 10, 1, Reason.VENDOR_FLOW_CAP),
            accepted(22, 2, 3, BUY, 0, 4),
            filled(22, (2, 3, BUY), 10, 4, 0, (2, 1), 0),
            accepted(23, 2, 4, BUY, 0, 30),
            cancelled(23, (2, 4, BUY), 0, 30, Reason.NO_LIQUIDITY),
            accepted(24, 2, 5, BUY, 16, 5),
            cancelled(24, (2, 5, BUY), 16, 5, Reason.IOC_REMAINDER),
            accepted(25, 1, 2, SELL, 20, 30),
            accepted(26, 0, 6, BUY, 20, 6),
            filled(26, (0, 6, BUY), 20, 6, 0, (1, 2), 24),
            rejected(27, 0, 7, BUY, 20, 1, Reason.VENDOR_FLOW_CAP),
            replaced(28, (0, 8, BUY), 3, 8, 2, 2, lost_priority=True),
            rejected(29, 0, 9, BUY, 20, 1, Reason.VENDOR_FLOW_CAP, at=99),
            rejected(30, 0, 10, BUY, 20, 30, Reason.VENDOR_FLOW_CAP, at=100),
            replaced(31, (0, 11, BUY), 8, 20, 25, 25, lost_priority=True, at=100),
            filled(31, (0, 11, BUY), 20, 24, 1, (1, 2), 0, at=100),
            accepted(32, 1, 3, SELL, 20, 1, at=100),
            filled(32, (1, 3, SELL), 20, 1, 0, (0, 11), 0, at=100),
        ],
        admitting(vendor_flow_bps=5_000, flow_window_ns=100, flow_floor=500),
    ),
    Scenario(
        "a vendor is killed with all that have a model of it, logged on or not, and may not come back",
        [
            declare(0, 7),
            declare(1, 7, 1),
            declare(2, 8),
            place(0, 1, BUY, 2, 50),
            place(1, 1, BUY, 3, 50),
            place(2, 1, BUY, 4, 50),
            log_off(1),
            operator(KILL_VENDOR, 9, 3, 5),
            operator(KILL_VENDOR, 0),
            operator(KILL_VENDOR, 1024),
            operator(KILL_VENDOR, 7, 0, 15),
            operator(KILL_VENDOR, 7),
            declare(1, 8),
            declare(2),
            operator(KILL_VENDOR, 8),
        ],
        [
            logged_on(10, 0, 7),
            logged_on(11, 1, 7, 1),
            logged_on(12, 2, 8),
            accepted(13, 0, 1, BUY, 50, 2),
            accepted(14, 1, 1, BUY, 50, 3),
            accepted(15, 2, 1, BUY, 50, 4),
            logged_off(16, 1),
            refused(17, 9, Reason.UNKNOWN_ACCOUNT, 5, instrument=3),
            refused(18, 0, Reason.UNKNOWN_ACCOUNT, instrument=0),
            refused(19, 1024, Reason.UNKNOWN_ACCOUNT, instrument=0),
            cancelled(20, (0, 1, BUY), 50, 2, Reason.KILLED),
            cancelled(20, (1, 1, BUY), 50, 3, Reason.KILLED),
            killed(20, BreakerAction.KILL_VENDOR, 7, 2, 2, Trigger.SUPERVISOR),
            refused(21, 7, Reason.UNKNOWN_ACCOUNT, instrument=0),
            refused(22, 1, Reason.IS_KILLED),
            logged_on(23, 2, last=1),
            refused(24, 8, Reason.UNKNOWN_ACCOUNT, instrument=0),
        ],
    ),
    Scenario(
        # Account 0 has declared nothing: it alone is killed, and as two instruments are halted then, the third is too.
        "a breaker kills the vendor of who tripped it, or if there is none that participant",
        [
            declare(1, 7),
            declare(2, 7),
            declare(3, 8),
            log_off(2),
            place(2, 1, BUY, 1, 40),
            place(0, 1, BUY, 9, 50),
            place(3, 1, BUY, 1, 41),
            place(1, 1, SELL, 5, 50),
            operator(CommandKind.DEPOSIT_POSITION, 0, 1, 20),
            place(3, 2, BUY, 9, 30, instrument=1),
            place(0, 2, SELL, 6, 30, instrument=1),
        ],
        [
            logged_on(10, 1, 7),
            logged_on(11, 2, 7),
            logged_on(12, 3, 8),
            logged_off(13, 2),
            accepted(14, 2, 1, BUY, 40, 1),
            accepted(15, 0, 1, BUY, 50, 9),
            accepted(16, 3, 1, BUY, 41, 1),
            accepted(17, 1, 1, SELL, 50, 5),
            halted(*(17, (1, 1, SELL), 50, 5, 5, Trigger.SELL_VOLUME, 5, 5, 100, 17), action=BreakerAction.KILL_VENDOR),
            phase(17, Phase.HALTED),
            cancelled(17, (2, 1, BUY), 40, 1, Reason.KILLED),
            killed(17, BreakerAction.KILL_VENDOR, 7, 2, 1, Trigger.SELL_VOLUME),
            cancelled(17, (1, 1, SELL), 50, 5, Reason.BREAKER),
            Event(18, EventKind.POSITION_DEPOSITED, 0, 1, 0, quantity_lots=20),
            accepted(19, 3, 2, BUY, 30, 9, instrument=1),
            accepted(20, 0, 2, SELL, 30, 6, instrument=1),
            halted(
                *(20, (0, 2, SELL), 30, 6, 6, Trigger.SELL_VOLUME, 6, 5, 100, 20), action=BreakerAction.KILL_PARTICIPANT
            )._replace(instrument=1),
            phase(20, Phase.HALTED, instrument=1),
            Event(20, EventKind.INSTRUMENT_HALTED, 0, 2, -1, reason=Trigger.MARKET, value=1),
            phase(20, Phase.HALTED, instrument=2),
            cancelled(20, (0, 1, BUY), 50, 9, Reason.KILLED),
            killed(20, BreakerAction.KILL_PARTICIPANT, 0, 1, 1, Trigger.SELL_VOLUME),
            cancelled(20, (0, 2, SELL), 30, 6, Reason.BREAKER, instrument=1),
        ],
        exchange(*[market(breaker=_SELLS)] * 2, market(), market_breaker=MarketBreakerConfig(halted_instruments=2)),
    ),
    Scenario(
        "what kills all takes the place of what kills a vendor",
        [declare(1, 7), place(0, 1, BUY, 9, 50), place(1, 1, SELL, 5, 50)],
        [
            logged_on(10, 1, 7),
            accepted(11, 0, 1, BUY, 50, 9),
            accepted(12, 1, 1, SELL, 50, 5),
            halted(*(12, (1, 1, SELL), 50, 5, 5, Trigger.SELL_VOLUME, 5, 5, 100, 12), action=BreakerAction.KILL_ALL),
            phase(12, Phase.HALTED),
            cancelled(12, (0, 1, BUY), 50, 9, Reason.KILLED),
            killed(12, BreakerAction.KILL_ALL, -1, 4, 1, Trigger.SELL_VOLUME),
            cancelled(12, (1, 1, SELL), 50, 5, Reason.BREAKER),
        ],
        exchange(market(breaker=_SELLS), market_breaker=MarketBreakerConfig(halted_instruments=1, action="kill_all")),
    ),
]
