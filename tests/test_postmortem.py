"""The chain of a crash that is known because it was written by hand, and of one small real run."""

import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from aar_swarm import what_if
from aar_swarm.agents.base import Rule
from aar_swarm.analysis import postmortem as chains
from aar_swarm.analysis.causes import Link, path_to, root_labels, trace
from aar_swarm.analysis.chain import Chain, build, milestones
from aar_swarm.analysis.fall import find_fall
from aar_swarm.analysis.session import Session
from aar_swarm.postmortem import CAUSES, PAGE, POSTMORTEM, STEP_LOSSES, examine_session
from aar_swarm.report.postmortem_page import write_page
from aar_swarm.report.postmortem_text import parts
from aar_swarm.scenario_tables import Breaker
from exchange.clock import MS
from exchange.config import EngineConfig, InstrumentConfig, MarginConfig
from exchange.journal import Journal
from exchange.types import CommandKind, EventKind, Phase, Reason, Side, Trigger
from tests.hand_made import MARKET, command, order, play, revalue
from tests.runs import aar, is_one_line, small, summary_of

K = CommandKind
GROUPS = ["makers", "holders", "crowd", "crowd", "noise"]
CONFIG = EngineConfig(
    instruments=(InstrumentConfig(price_levels=16384, initial_margin_bps=2000, maintenance_margin_bps=1000),),
    accounts=5,
    max_orders=64,
    margin=MarginConfig(mark="last"),
)
OPEN, NOISE, QUIET, SIGNAL, FIRST, SECOND, CALL, SLICE, LIQUIDATION, LAST, CLOSE = (10, *range(17, 27))
"""Sequences of the crash below."""


def sell(account: int, number: int, lots: int, at_ms: float, cause: int, rule: Rule = Rule.EXIT) -> dict[str, int]:
    fields = order(account, number, Side.SELL, 0, lots, at_ms, MARKET, rule=int(rule))
    return fields | {
        "cause_sequence": cause,
        "heard_ns": fields["received_ns"] - 2000,
        "sent_ns": fields["received_ns"],
    }


def endowed() -> list[dict[str, int]]:
    """Account 1 holds 10 lots at a leverage of five; bids of 990, 900, 700 and 600; one calm trade at 990."""
    return [
        command(K.PUBLISH_INDEX, 0, quantity_lots=1000),
        command(K.DEPOSIT_CASH, 0, account=0, quantity_lots=10**7),
        command(K.DEPOSIT_POSITION, 0, account=0, quantity_lots=200),
        command(K.SET_MARGIN, 0, account=1, quantity_lots=1),
        command(K.DEPOSIT_POSITION, 0, account=1, quantity_lots=10),
        command(K.WITHDRAW_CASH, 0, account=1, quantity_lots=8000),
        command(K.DEPOSIT_POSITION, 0, account=2, quantity_lots=20),
        command(K.DEPOSIT_POSITION, 0, account=3, quantity_lots=20),
        command(K.DEPOSIT_POSITION, 0, account=4, quantity_lots=5),
        command(K.OPEN_SESSION, 1),
        order(0, 11, Side.SELL, 1010, 50, 2),
        order(0, 12, Side.BUY, 990, 5, 2),
        order(0, 13, Side.BUY, 900, 5, 2),
        order(0, 14, Side.BUY, 700, 8, 2),
        order(0, 15, Side.BUY, 600, 100, 2),
        revalue(3),
        sell(4, 1, 1, 4, OPEN, Rule.TRADE_AT_RANDOM),
        revalue(5),
    ]


def crash() -> Session:
    """Two of the crowd answer the news; the price calls account 1, a third order sinks it, and it is sold at a loss."""
    commands = [
        *endowed(),
        command(K.PUBLISH_SIGNAL, 10, quantity_lots=-50),
        sell(2, 1, 4, 12, SIGNAL),  # the rest at 990
        sell(3, 1, 5, 12.5, SIGNAL),  # all at 900
        revalue(13),  # account 1 is called
        sell(2, 2, 3, 14, QUIET),  # at 700: a timer's, who heard last what made no event before the news
        revalue(15),  # 10 lots at 700 and 600 against 8,000: 1,500 are missing
        sell(3, 2, 2, 16, LIQUIDATION),
        command(K.CLOSE_SESSION, 100),
    ]
    session, _, _ = play(CONFIG, commands, GROUPS)
    return session


@pytest.fixture(scope="module")
def chain() -> Chain:
    found = build(crash())
    assert found is not None
    return found


# ── causes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_command_goes_back_to_its_cause(chain):
    causes = chain.causes

    def of(sequence: int) -> tuple[int, Link, int, int]:
        at = sequence - 1
        return int(causes.cause[at]), Link(int(causes.link[at])), int(causes.root[at]), int(causes.depth[at])

    assert of(SIGNAL) == (0, Link.ROOT, SIGNAL, 0)
    assert of(FIRST) == (SIGNAL, Link.HEARD, SIGNAL, 1)
    assert of(SECOND) == (SIGNAL, Link.HEARD, SIGNAL, 1)
    assert of(CALL) == (SECOND, Link.MARK, SIGNAL, 2)  # 990 → 900 was its order's, not the first one's
    assert of(SLICE) == (FIRST, Link.PLAN, SIGNAL, 2)  # what it had heard last is older than its own plan's news
    assert of(LIQUIDATION) == (SLICE, Link.MARK, SIGNAL, 3)
    assert of(LAST) == (LIQUIDATION, Link.HEARD, SIGNAL, 4)
    assert of(NOISE) == (OPEN, Link.HEARD, OPEN, 1)
    assert path_to(causes, LAST) == [SIGNAL, FIRST, SLICE, LIQUIDATION, LAST]


def test_a_message_that_names_a_command_without_events_told_of_the_one_before_it():
    commands = [*endowed(), sell(4, 2, 1, 6, QUIET, Rule.SELL_ABOVE_VALUE), command(K.CLOSE_SESSION, 100)]
    session, _, _ = play(CONFIG, commands, GROUPS)
    causes = trace(session)
    assert QUIET not in session.events["sequence"]
    assert causes.cause[18] == NOISE and causes.link[18] == Link.HEARD


def test_what_a_vendor_said_is_a_root_and_names_itself():
    commands = [
        *endowed(),
        sell(2, 1, 4, 12, OPEN, Rule.ACT_ON_VALUATION),
        sell(3, 1, 1, 13, 19, Rule.EXIT),
        sell(2, 2, 1, 14, OPEN, Rule.RETURN_TO_BENCHMARK),
        command(K.CLOSE_SESSION, 100),
    ]
    session, _, _ = play(CONFIG, commands, GROUPS)
    causes = trace(session)
    labels = root_labels(session, causes)
    assert causes.root[18:21].tolist() == [19, 19, 21] and causes.depth[18:21].tolist() == [1, 2, 1]
    assert labels[18] == labels[19] == "a vendor's valuations" and labels[20] == "a vendor withdrew its valuations"


def test_a_supervisors_halt_goes_back_to_what_it_saw_and_a_timer_to_its_phase():
    breaker = Breaker(price_move_bps=300, price_window_ms=1000, halt_ms=1, reopening_auction_ms=1)
    config = what_if.with_breaker(CONFIG, breaker)
    halt = command(K.HALT, 6, account=-1, instrument=0, quantity_lots=NOISE)
    timer = command(K.TIMER, 7, account=-1, instrument=0)
    session, _, _ = play(config, [*endowed(), halt, timer, command(K.CLOSE_SESSION, 100)], GROUPS)
    causes = trace(session)
    assert (causes.cause[18], causes.link[18]) == (NOISE, Link.EVIDENCE)
    assert (causes.cause[19], causes.link[19]) == (19, Link.PHASE)


# ── the fall and its steps ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_fall_begins_where_the_price_left_its_calm_range_for_good(chain):
    fall = chain.fall
    assert (fall.peak_ticks, fall.peak_sequence) == (990, FIRST)
    assert (fall.calm_ticks, fall.left_sequence, fall.left_ticks) == (951, SECOND, 900)
    assert (fall.half_sequence, fall.trough_sequence, fall.trough_ticks) == (SLICE, LIQUIDATION, 600)
    assert fall.fall_bps == pytest.approx(390 / 990 * 10_000)


def test_the_first_cause_is_the_news_behind_it(chain):
    assert (chain.cause, chain.cause_sequence, chain.cause_share) == ("the signal of -50 bps", SIGNAL, 1.0)
    wave = chains.first_wave(chain)
    assert (wave["commands"], wave["accounts"], wave["sell_lots"], wave["buy_lots"]) == (2, 2, 9, 0)
    assert (wave["first_ms"], wave["last_ms"], wave["by_participants"]) == (2.0, 2.5, {"crowd": 2})


def test_steps_begin_at_milestones_and_share_out_the_move_and_the_loss(chain):
    assert milestones(chain) == [
        (SIGNAL, "first cause"),
        (SECOND, "the price leaves its calm range"),
        (CALL, "margin calls begin"),
        (SLICE, "half of the fall"),
        (LIQUIDATION, "liquidations begin; bad debt"),
        (LAST, "after the trough"),
    ]
    steps, losses = chains.steps(chain)
    assert [step["to_ticks"] - step["from_ticks"] for step in steps] == [-45, -100, 0, 0, -50, 0]
    assert [step["moved_by_ticks"]["taking"] for step in steps] == [-45, -100, 0, 0, 0, 0]
    assert steps[4]["moved_by_ticks"]["liquidation"] == -50
    assert [step["margin_calls"] for step in steps] == [0, 0, 1, 0, 0, 0]
    assert (steps[4]["liquidations"], steps[4]["liquidated_lots"], steps[4]["bad_debt"]) == (1, 10, 15.0)
    # Of 40 lots at 1,000: 4 sold at 990 and 36 at 955 are 1,660 less.
    assert steps[0]["loss_subject"] == pytest.approx(16.60)
    crowd = chain.session.losses[chain.session.groups == "crowd"].sum()
    assert sum(step["loss_subject"] for step in steps) == pytest.approx(crowd)
    by_account = losses.group_by("account").agg(pl.col("loss").sum()).sort("account")["loss"].to_numpy()
    np.testing.assert_allclose(by_account, chain.session.losses)


def test_the_orders_that_took_the_bids_down_are_named(chain):
    steps, _ = chains.steps(chain)
    tops = [step["orders_that_moved_it_most"] for step in steps]
    assert [[one["sequence"] for one in top] for top in tops] == [[FIRST], [SECOND], [], [SLICE], [LIQUIDATION], [LAST]]
    assert (tops[0][0]["walked_ticks"], tops[0][0]["bid_lowered_ticks"]) == (0, 90)  # it emptied 990: 900 is next
    sold = tops[4][0]
    assert (sold["participants"], sold["rule"], sold["lots"]) == ("liquidation engine", None, 10)
    assert (sold["walked_ticks"], sold["best_bid_ticks"], sold["worst_fill_ticks"]) == (100, 700, 600)


def test_decisions_are_grouped_by_who_which_rule_and_which_root(chain):
    rows = chains.decisions(chain).to_dicts()
    assert [(row["participants"], row["rule"], row["root"]) for row in rows] == [("crowd", "EXIT", chain.cause)]
    assert (rows[0]["commands"], rows[0]["commands_to_trough"], rows[0]["accounts"]) == (4, 3, 2)
    assert (rows[0]["lots"], rows[0]["taken_lots"], rows[0]["taken_lots_to_trough"]) == (14, 14, 12)
    assert chains.depths(chain) == [
        {"depth": 1, "commands": 2, "lots": 9},
        {"depth": 2, "commands": 1, "lots": 3},
        {"depth": 4, "commands": 1, "lots": 2},
    ]


def test_paths_lead_from_the_root_to_the_trough_and_to_the_last_loss(chain):
    found = {name: [link["sequence"] for link in links] for name, links in chains.paths(chain).items()}
    assert found["trough"] == found["last_loss"] == [SIGNAL, FIRST, SLICE, LIQUIDATION]
    assert found["largest_move"] == [SIGNAL, SECOND]


def test_what_was_still_to_come_ends_at_nothing(chain):
    found = {stop["at"]: stop for stop in chains.stops(chain) if stop["at"]}
    total = chain.session.losses[chain.session.groups == "crowd"].sum()
    assert found["first cause"]["loss_subject"] == pytest.approx(total)
    assert [found[name]["bad_debt"] for name in ("first cause", "half of the fall", "after the trough")] == [15, 15, 0]
    assert [found[name]["liquidations"] for name in ("liquidations begin; bad debt", "after the trough")] == [1, 0]
    assert found["first cause"]["drawdown_bps"] == pytest.approx(400 / 990 * 10_000, abs=0.01)
    assert found["after the trough"]["trades"] == 1


def test_nothing_fell_where_calm_moves_as_much():
    down = [order(0, 20 + n, Side.BUY, 980 - 3 * (n % 2), 5, 5.1) for n in range(2)]
    trades = [sell(4, 2 + n, 1, 6 + n, OPEN, Rule.TRADE_AT_RANDOM) for n in range(4)]
    commands = [*endowed(), *down, *trades, command(K.CLOSE_SESSION, 100)]
    session, _, _ = play(CONFIG, commands, GROUPS)
    assert find_fall(session) is None and build(session) is None
    found = examine_session(session, Journal(CONFIG, session.commands), {}).found
    assert found["fell"] is False and found["chain"] == [] and found["defences"] == []
    assert "Nothing fell" in str(next(parts(found)))


# ── the same commands, another venue ─────────────────────────────────────────────────────────────────────────────────


def recorded() -> Journal:
    """The crash as a venue journals it: with every REVALUE that was due."""
    session = crash()
    return Journal(CONFIG, what_if.with_timers(CONFIG, session.commands)[0])


def test_timers_that_were_due_are_added_once():
    session = crash()
    commands, positions = what_if.with_timers(CONFIG, session.commands)
    assert len(commands) > len(session.commands)
    assert (commands["sequence"] == np.arange(1, len(commands) + 1)).all()
    assert (np.diff(commands["received_ns"]) >= 0).all()
    fields = ["kind", "account", "order_id", "received_ns", "cause_sequence"]
    assert (commands[positions - 1][fields] == session.commands[fields]).all()
    added = np.setdiff1d(commands["sequence"], positions)
    assert (commands["kind"][added - 1] == K.REVALUE).all()
    again, same = what_if.with_timers(CONFIG, commands)
    assert (again == commands).all() and (same == commands["sequence"]).all()


def test_a_breaker_prevents_what_came_after_its_trip(chain):
    found = examine_session(chain.session, Journal(CONFIG, chain.session.commands), {}).found
    rows = {row["defence"]: row for row in found["defences"]}
    assert found["without"]["trades"] == 6 and found["without"]["bad_debt"] == 15.0
    default = rows["default"]  # 300 bps within 1 s: the match at 900 does not happen
    assert (default["stopped_ms"], default["trades"], default["drawdown_bps"]) == (2.5, 1, 0)
    assert (default["liquidations"], default["bad_debt"]) == (0, 0)
    assert default["loss_subject"] == pytest.approx(16.60)
    assert default["saved"]["trades"] == 5 and default["saved"]["bad_debt"] == 15.0
    assert default["saved"]["loss_subject"] == pytest.approx(found["loss_subject"] - 16.60)
    assert rows["sell-volume"]["saved"]["trades"] == 0  # never tripped, and the same commands give the same events
    assert found["supervisor"] == {"alerts_before": 0, "first_alert": None}


def test_a_halt_that_only_the_defence_made_ends_when_it_is_due():
    breaker = Breaker(price_move_bps=300, price_window_ms=1000, halt_ms=1, reopening_auction_ms=1)
    journal = recorded()
    found = what_if.replay_with(journal, what_if.Defence("pause", "breaker", "", what_if.with_breaker(CONFIG, breaker)))
    changed = found.events[(found.events["kind"] == EventKind.PHASE_CHANGED)]
    phases = [(Phase(int(event["value"])), int(event["time_ns"]) / MS) for event in changed]
    assert phases[1:4] == [(Phase.HALTED, 12.5), (Phase.AUCTION, 13.5), (Phase.CONTINUOUS, 14.5)]
    assert len(found.positions) == len(journal.commands)
    slices = found.journal.commands[found.positions - 1]
    assert (slices["order_id"] == journal.commands["order_id"]).all()


def test_a_supervisors_halt_stands_where_it_was_due():
    journal = recorded()
    first = int(journal.commands["sequence"][journal.commands["account"] == 2][1])
    halt = what_if.Defence("supervisor", "supervisor", "", CONFIG, halt_ns=int(12.2 * MS), evidence=first)
    found = what_if.replay_with(journal, halt)
    halted = found.events[found.events["kind"] == EventKind.INSTRUMENT_HALTED]
    assert halted["reason"].tolist() == [Trigger.SUPERVISOR] and halted["time_ns"].tolist() == [int(12.2 * MS)]
    assert halted["maker_order_id"].tolist() == [first]
    fills = found.events[found.events["kind"] == EventKind.ORDER_FILLED]
    assert (fills["sequence"] < halted["sequence"][0]).all() and len(fills) == 2
    assert Reason.HALTED in found.events["reason"]
    late = halt._replace(halt_ns=int(1e12))
    assert len(what_if.replay_with(journal, late).journal.commands) == len(journal.commands)


def test_policies_that_were_not_in_force_are_replayed(chain):
    journal = Journal(CONFIG, chain.session.commands)
    chosen, _ = what_if.defences(chain.session.scenario, journal, SIGNAL)
    policies = {each.name: each.config for each in chosen if each.kind == "policy"}
    assert policies["diversity"].admission.vendor_flow_bps == 2500  # the scenario's own
    assert "explained" not in policies  # its orders carry nothing, so all would be refused
    required = what_if.with_fields(CONFIG, {"explanations_required": True})
    found = what_if.replay_with(journal, what_if.Defence("explained", "policy", "", required))
    assert (found.events["reason"] == Reason.UNEXPLAINED).sum() > 0
    assert not (found.events["kind"] == EventKind.ORDER_FILLED).any()


# ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_text_and_page_hold_the_chain_and_nothing_from_the_network(tmp_path, chain):
    examined = examine_session(chain.session, Journal(CONFIG, chain.session.commands), {"breaker": "off", "seed": 1})
    assert json.loads(json.dumps(examined.found, allow_nan=False)) == examined.found
    console = Console(width=200, record=True, file=io.StringIO())
    for part in parts(examined.found):
        console.print(part)
    text = console.export_text()
    for words in (
        "First cause: the signal of -50 bps",
        "5. Liquidations begin; bad debt",
        "Bad debt: 15.00",
        "default",
    ):
        assert words in text
    assert "neither an upper nor a lower bound" in text
    write_page(tmp_path / PAGE, examined.found, examined.chain, examined.session)
    page = (tmp_path / PAGE).read_text()
    assert "Liquidations begin; bad debt" in page and "default-src 'none'" in page
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="http', page)


@pytest.mark.usefixtures("nothing_left")
def test_a_real_run_is_examined_whole(tmp_path):
    directory = tmp_path / "run"
    summary = summary_of(aar(*small(40, **{"signal.bps": "-1000"}), "--breaker", "off", "--out", directory, "--json"))
    found = summary_of(aar("postmortem", directory, "--json"))
    assert found["fell"] and found["first_cause"]["what"] == "the signal of -1,000 bps"
    assert found == json.loads((directory / POSTMORTEM).read_text())
    assert found["subject"] == "crowd" and found["loss_subject"] == pytest.approx(summary["loss_crowd"], abs=0.1)
    assert {row["defence"] for row in found["defences"]} >= {"default", "price-move", "sell-volume", "kill"}
    assert all(row["timers_added"] >= 0 for row in found["defences"])
    causes = pl.read_parquet(directory / CAUSES)
    assert causes.height == summary["commands"] and (causes["cause_sequence"] < causes["sequence"]).all()
    lost = pl.read_parquet(directory / STEP_LOSSES).filter(pl.col("participants") == "crowd")["loss"].sum()
    assert lost == pytest.approx(summary["loss_crowd"], abs=0.1)
    assert (directory / PAGE).stat().st_size > 100_000
    (directory / "summary.json").unlink()
    half = aar("postmortem", directory)
    assert half.returncode == 2 and is_one_line(half.stderr) and "did not finish" in half.stderr


def test_a_directory_that_holds_no_run_is_one_line(tmp_path: Path):
    told = aar("postmortem", tmp_path)
    assert told.returncode == 2 and is_one_line(told.stderr) and not told.stdout
