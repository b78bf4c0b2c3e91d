"""Admission at a live venue: who is refused a session or an order, what a message with its decision becomes, who is
killed with a vendor. The rules themselves are checked against the oracle (tests/oracle_admission.py)."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from exchange import journal, wire
from exchange.config import AdmissionConfig, EngineConfig, InstrumentConfig
from exchange.replay import replay
from exchange.types import EXPLANATION, BreakerAction, CommandKind, EventKind, OrderType, Reason, Side
from exchange.wire import Declaration
from tests.venues import check_replay, engine, running_venue

FIRST, SECOND = Declaration(1, 1, 1), Declaration(2, 1, 3)
WORDS = (-50, 60, 2**62, -(2**63), 4607182418800017408, 0, 1, 2, 3)


@pytest.mark.parametrize("cap", ["vendor_agents_bps", "vendor_capital_bps", "vendor_flow_bps"])
def test_a_cap_of_all_is_refused(cap):
    window = {"flow_window_ns": 1} if cap == "vendor_flow_bps" else {}
    assert AdmissionConfig(**{cap: 9_999, **window})
    with pytest.raises(ValidationError, match=f"{cap}\n.*less than 10000"):
        AdmissionConfig(**{cap: 10_000, **window})


def test_a_cap_on_flow_is_refused_where_nobody_takes():
    flow = AdmissionConfig(vendor_flow_bps=5_000, flow_window_ns=1)
    continuous, batches = InstrumentConfig(price_levels=64), InstrumentConfig(price_levels=64, batch_interval_ns=10**6)
    with pytest.raises(ValidationError, match="vendor_flow_bps could never refuse"):
        EngineConfig(instruments=(batches, batches), accounts=2, admission=flow)
    assert EngineConfig(instruments=(batches, continuous), accounts=2, admission=flow)
    assert EngineConfig(instruments=(batches,), accounts=2, admission=AdmissionConfig(vendor_agents_bps=5_000))


def admitting(tmp_path: Path, **settings):
    required = settings.pop("explanations_required", False)
    config = AdmissionConfig(**settings) if settings else None
    return running_venue(tmp_path, engine=engine(admission=config, explanations_required=required), open_at_start=True)


def test_a_vendor_s_cap_refuses_logons_until_one_leaves(tmp_path):
    with admitting(tmp_path, vendor_agents_bps=2500) as venue:  # two of eight
        there = [venue.connection() for _ in range(4)]
        assert all(isinstance(each.log_on(n, declaration=FIRST), wire.LoggedOn) for n, each in enumerate(there[:2]))
        assert there[2].log_on(2, declaration=FIRST).reason == Reason.VENDOR_AGENTS_CAP
        there[2].place(1, Side.BUY, 90, 1)
        assert there[2].hear(wire.MessageKind.REFUSED).reason == Reason.NOT_LOGGED_ON
        assert isinstance(there[2].log_on(2, declaration=SECOND), wire.LoggedOn)
        assert isinstance(there[3].log_on(3), wire.LoggedOn)  # of no vendor
        there[0].log_off()
        late = venue.connection()
        assert isinstance(late.log_on(4, declaration=FIRST), wire.LoggedOn)
        # A session keeps its model, and a refused logon leaves it as it was.
        assert there[2].log_on(2, declaration=Declaration()).reason == Reason.DECLARED_OTHERWISE
        venue.endow(2)
        there[2].place(1, Side.BUY, 90, 1)
        assert there[2].hear(EventKind.ORDER_ACCEPTED)
        assert venue.status().logged_on == 4
        replayed = check_replay(venue, venue.stop())
        vendors = replayed.engine.state.accounts["vendor"]
        assert vendors.tolist()[:5] == [1, 1, 2, 0, 1]
        refused = replayed.events[replayed.events["reason"] == Reason.VENDOR_AGENTS_CAP]
        assert refused["account"].tolist() == [2]


def test_a_place_is_free_when_nothing_of_its_account_rests(tmp_path):
    with admitting(tmp_path, vendor_agents_bps=1250) as venue:  # one of eight
        venue.endow(0)
        first, second = venue.connection(), venue.connection()
        first.log_on(0, declaration=FIRST)
        first.place(1, Side.BUY, 90, 1)
        first.hear(EventKind.ORDER_ACCEPTED)
        first.log_off()
        assert second.log_on(1, declaration=FIRST).reason == Reason.VENDOR_AGENTS_CAP
        again = venue.connection()
        assert isinstance(again.log_on(0, declaration=SECOND), wire.LoggedOn)  # with its order it is now of the second
        assert isinstance(second.log_on(1, declaration=FIRST), wire.LoggedOn)
        check_replay(venue, venue.stop())


def test_a_restarted_venue_keeps_its_caps(tmp_path):
    with admitting(tmp_path, vendor_agents_bps=1250) as venue:
        assert isinstance(venue.connection().log_on(0, declaration=FIRST), wire.LoggedOn)
        venue.kill()
        venue.start()
        assert venue.connection().log_on(1, declaration=FIRST).reason == Reason.VENDOR_AGENTS_CAP
        again = venue.connection()
        assert isinstance(again.log_on(0, declaration=FIRST), wire.LoggedOn)  # its own place
        check_replay(venue, venue.stop())


@pytest.mark.parametrize(
    ("declaration", "reason"),
    [
        (Declaration(), Reason.UNDECLARED),
        (Declaration(1, 1, 2), Reason.NOT_VALIDATED),
        (Declaration(3, 1, 1), Reason.NOT_VALIDATED),
        (Declaration(1024, 1, 1), Reason.MALFORMED),
        (Declaration(1, -1, 1), Reason.MALFORMED),
        (Declaration(1, 1, 1 << 31), Reason.MALFORMED),
        (Declaration(1, 1, 1), None),
    ],
)
def test_a_gate_lets_in_what_was_validated(tmp_path, gated, declaration, reason):
    connection = gated.connection()
    answer = connection.log_on(0, declaration=declaration)
    if reason is None:
        assert isinstance(answer, wire.LoggedOn)
    else:
        assert answer.reason == reason


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    place = tmp_path_factory.mktemp("gated")
    with admitting(place, declaration_required=True, validated=((1, 1, 1), (2, 1, 3))) as venue:
        yield venue


def test_a_cap_on_capital_counts_what_the_accounts_are_worth(tmp_path):
    with admitting(tmp_path, vendor_capital_bps=5000) as venue:
        for account, cash in enumerate((600, 300, 100, 200)):
            assert venue.operator.request(CommandKind.DEPOSIT_CASH, account, 0, cash).reason == 0
        connections = [venue.connection() for _ in range(3)]
        assert isinstance(connections[0].log_on(0, declaration=FIRST), wire.LoggedOn)  # 600 of 1,200
        assert connections[1].log_on(1, declaration=FIRST).reason == Reason.VENDOR_CAPITAL_CAP
        assert isinstance(connections[1].log_on(1, declaration=SECOND), wire.LoggedOn)
        check_replay(venue, venue.stop())


def test_a_cap_on_flow_refuses_what_could_take_and_lets_what_rests(tmp_path):
    with admitting(tmp_path, vendor_flow_bps=5000, flow_window_ns=10**12, flow_floor=1000) as venue:
        for account in (0, 1):
            venue.endow(account)
        maker, seller = venue.connection(), venue.connection()
        maker.log_on(0)
        seller.log_on(1, declaration=FIRST)
        maker.place(1, Side.BUY, 100, 100)
        maker.hear(EventKind.ORDER_ACCEPTED)
        seller.place(1, Side.SELL, 100, 10, OrderType.IOC)  # 1,000: the floor
        assert seller.hear(EventKind.ORDER_FILLED)
        seller.place(2, Side.SELL, 100, 1, OrderType.IOC)
        assert seller.hear(EventKind.ORDER_REJECTED).reason == Reason.VENDOR_FLOW_CAP
        seller.place(3, Side.SELL, 101, 11)
        assert seller.hear(EventKind.ORDER_ACCEPTED)
        maker.place(2, Side.BUY, 100, 10**4, OrderType.IOC)  # a million that nobody sells changes nothing
        maker.hear(EventKind.ORDER_CANCELLED)
        seller.place(4, Side.SELL, 1, 1, OrderType.IOC)  # nor that it asks for one tick: it would sell at 100
        assert seller.hear(EventKind.ORDER_REJECTED).reason == Reason.VENDOR_FLOW_CAP
        maker.place(3, Side.BUY, 101, 12, OrderType.IOC)  # others take 1,111, so 1,100 are below a half
        maker.hear(EventKind.ORDER_CANCELLED)
        seller.place(5, Side.SELL, 1, 1, OrderType.IOC)
        assert seller.hear(EventKind.ORDER_FILLED)
        check_replay(venue, venue.stop())


def explained(connection, order_id, words=WORDS, rule=7, kind=CommandKind.PLACE_ORDER, target=None):
    named = (order_id,) if target is None else (order_id, target)
    sides = (0, Side.BUY) if target is None else (0,)
    connection.send(kind, *named, *sides, OrderType.LIMIT, 90, 5, 11, 12, 0, rule, *words)


def test_an_order_carries_its_decision_into_the_journal_directly_before_it(tmp_path):
    with admitting(tmp_path, explanations_required=True) as venue:
        venue.endow(0)
        session = venue.session(0)
        session.place(1, Side.BUY, 90, 5)
        assert session.hear(EventKind.ORDER_REJECTED).reason == Reason.UNEXPLAINED
        for order_id in range(2, 400):  # more than a batch of the loop, and each is two commands
            explained(session, order_id)
        for order_id in range(2, 400):
            report = session.next()
            assert (report.kind, report.order_id) in (
                (EventKind.ORDER_ACCEPTED, order_id),
                (EventKind.ORDER_REJECTED, order_id),  # 256 may rest
            )
            assert report.reason in (0, Reason.BOOK_FULL)
        explained(session, 400, kind=CommandKind.REPLACE_ORDER, target=2)
        assert session.hear(EventKind.ORDER_REPLACED).order_id == 400
        session.send(CommandKind.REPLACE_ORDER, 401, 400, 0, OrderType.LIMIT, 90, 5, 0, 0, 0, 7)
        assert session.hear(EventKind.ORDER_REJECTED).reason == Reason.UNEXPLAINED
        for wrong in (WORDS[:-1], (*WORDS, 1)):
            explained(session, 402, wrong)
            assert session.hear(wire.MessageKind.REFUSED).reason == Reason.MALFORMED
        said = venue.stop()
        check_replay(venue, said)
        commands = journal.read(venue.config.directory).commands
        explaining = commands[commands["kind"] == CommandKind.EXPLAIN]
        assert len(explaining) == 399
        behind = commands[explaining["sequence"]]  # sequences count from 1
        assert set(behind["kind"]) == {CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER}
        for name in ("account", "order_id", "rule", "received_ns"):
            assert (explaining[name] == behind[name]).all()
        assert {tuple(int(row[name]) for name in EXPLANATION) for row in explaining} == {WORDS}


def test_a_vendor_s_participants_are_killed_together(tmp_path):
    with admitting(tmp_path) as venue:
        listener = venue.participant(7)
        sessions = [venue.connection() for _ in range(3)]
        for account, declaration in enumerate((FIRST, SECOND, FIRST)):
            venue.endow(account)
            sessions[account].log_on(account, declaration=declaration)
            sessions[account].place(1, Side.BUY, 90, 5)
            sessions[account].hear(EventKind.ORDER_ACCEPTED)
        assert venue.operator.request(CommandKind.KILL_VENDOR, 1, 0, 17).reason == 0
        for account in (0, 2):
            assert sessions[account].hear(wire.MessageKind.REFUSED).reason == Reason.IS_KILLED
        notice = None
        while notice is None or notice.kind != EventKind.PARTICIPANTS_KILLED:
            assert listener.public.poll(10_000)
            message = wire.unpack(listener.public.recv())
            notice = message if isinstance(message, wire.Notice) else None
        assert (notice.action, notice.value, notice.quantity_lots) == (BreakerAction.KILL_VENDOR, 1, 2)
        sessions[1].place(2, Side.BUY, 91, 5)
        assert sessions[1].hear(EventKind.ORDER_ACCEPTED)
        assert venue.operator.request(CommandKind.KILL_VENDOR, 1).reason == Reason.UNKNOWN_ACCOUNT
        assert venue.operator.request(CommandKind.KILL_VENDOR, 3).reason == Reason.UNKNOWN_ACCOUNT
        check_replay(venue, venue.stop())


def test_who_was_not_admitted_in_a_replay_with_a_cap_trades_nothing_there(tmp_path):
    with admitting(tmp_path) as venue:
        for account in (0, 1):
            venue.endow(account)
            connection = venue.connection()
            connection.log_on(account, declaration=FIRST)
            connection.place(1, Side.BUY, 90, 5)
            connection.hear(EventKind.ORDER_ACCEPTED)
        venue.stop()
        recorded = journal.read(venue.config.directory)
    capped = recorded.config.model_copy(update={"admission": AdmissionConfig(vendor_agents_bps=1250)})
    events = replay(capped, recorded.commands).events
    rejected = events[events["kind"] == EventKind.ORDER_REJECTED]
    assert rejected["reason"].tolist() == [Reason.VENDOR_AGENTS_CAP, Reason.NOT_LOGGED_ON]
    assert rejected["account"].tolist() == [1, 1]
