"""The checker of explanations: its measures on paper, honest agents and liars in made-up journals, and a real run."""

import json
from pathlib import Path

import numpy as np
import pytest

import aar_swarm
from aar_swarm import cli
from aar_swarm.agents.base import Endowment, PlaceOrder, Rule, Strategy
from aar_swarm.agents.decision import Input, own, private, public
from aar_swarm.agents.holder import EXIT, Holder, HolderParams
from aar_swarm.agents.lying_holder import LyingHolder, LyingHolderParams, flee
from aar_swarm.analysis.explained import agreement, explain_run, explanations_of, judge, lines, redecided
from aar_swarm.analysis.journal_facts import RECENT_NS, Fact, JournalFacts, Series
from aar_swarm.analysis.why import why
from aar_swarm.names import agent_stream
from exchange.clock import MS
from exchange.config import EngineConfig, InstrumentConfig
from exchange.errors import ConfigurationError
from exchange.journal import Journal
from exchange.replay import replay
from exchange.types import EXPLANATION, CommandKind, EventKind, OrderType, Reason, Side
from tests.hand_made import command, order, records_of
from tests.runs import SMALL, aar, is_one_line, summary_of
from tests.test_agents import MARKET, orders, signal, top

HOLDER = "aar_swarm.agents.holder:Holder"
LIAR = "aar_swarm.agents.lying_holder:LyingHolder"
MAKER, CROWD = 0, 1
CALM = {"conviction_bps": 20, "conviction_spread_bps": 0, "spread_of_tastes": 0}


def explain(account: int, order_id: int, rule: int, words: tuple[int, ...], at_ms: float) -> dict[str, int]:
    said = dict(zip(EXPLANATION, words, strict=False))
    return command(CommandKind.EXPLAIN, at_ms, account=account, order_id=order_id, rule=rule, **said)


def sent(account: int, placed: PlaceOrder, at_ms: float, heard_ms: float | None = None) -> list[dict[str, int]]:
    """What the venue writes of an explained order."""
    heard_ns = int((at_ms if heard_ms is None else heard_ms) * MS)
    said = [explain(account, placed.order_id, placed.rule, placed.inputs, at_ms)] if placed.inputs else []
    side, kind = Side(placed.side), OrderType(placed.order_type)
    mine = order(account, placed.order_id, side, placed.price_ticks, placed.quantity_lots, at_ms, kind, placed.rule)
    return [*said, {**mine, "heard_ns": heard_ns}]


def opening(accounts: int, shares: int = 60) -> list[dict[str, int]]:
    """A maker with a deep bid and offer around 10,000; the others hold shares."""
    commands = [command(CommandKind.DEPOSIT_CASH, 0, account=MAKER, quantity_lots=10**9)]
    for account in range(accounts):
        lots = 10**5 if account == MAKER else shares
        commands.append(command(CommandKind.DEPOSIT_POSITION, 0, account=account, quantity_lots=lots))
    commands.append(command(CommandKind.OPEN_SESSION, 1))
    return [*commands, order(MAKER, 1, Side.BUY, 9_996, 5000, 2), order(MAKER, 2, Side.SELL, 10_004, 5000, 2)]


def journal_of(commands: list[dict[str, int]], accounts: int) -> Journal:
    return Journal(
        EngineConfig(instruments=(InstrumentConfig(price_levels=16_384),), accounts=accounts), records_of(commands)
    )


def news(bps: int, at_ms: float) -> dict[str, int]:
    return command(CommandKind.PUBLISH_SIGNAL, at_ms, quantity_lots=bps)


def made(kind: type[Strategy], account: int, params: HolderParams) -> Strategy:
    holder = kind(MARKET, Endowment(1, 60), params, agent_stream(7, account))
    holder.handle(top(), 2 * MS)
    return holder


def honest(account: int, **changes) -> PlaceOrder:
    """What a holder sends on news of −50."""
    holder = made(Holder, account, HolderParams(**{**CALM, **changes}))
    return orders(holder.handle(signal(-50), 10 * MS))[0]


def lie(account: int, forges: bool) -> PlaceOrder:
    """What a liar sends when it sees the price fall."""
    liar = made(LyingHolder, account, LyingHolderParams(**CALM, forges=forges))
    return orders(liar.handle(top(bid=9_980, ask=9_988), 10 * MS))[0]


class TestMeasures:
    def test_agreement_is_the_mean_over_orders_of_the_share_of_the_others_who_did_the_same(self):
        pairs = [("e", "a"), ("e", "a"), ("e", "b"), ("f", "a"), ("g", "a"), ("g", "a")]
        # e: ½, ½, 0; f: nobody to compare with; g: 1, 1
        assert agreement(pairs) == {"value": pytest.approx(3 / 5), "n": 5}
        assert agreement([("e", "a")]) == agreement([]) == {"value": None, "n": 0}

    def test_consistency_sees_the_same_words_with_another_action(self):
        first, second = honest(1), honest(1)
        third = second._replace(quantity_lots=second.quantity_lots + 1)
        commands = opening(4) + [news(-50, 9)]
        for account, placed in enumerate((first, second, third), 1):
            commands += sent(account, placed, 10)
        found = judge(journal_of(commands, 4), ["", HOLDER, HOLDER, HOLDER], 10_000)
        assert found["consistency"] == found["sufficiency"] == {"value": pytest.approx(1 / 3), "n": 3}
        assert (found["explained"], found["reproduced"]) == (3, 2)

    def test_sufficiency_compares_those_on_whose_inputs_the_rule_does_the_same(self):
        first, second = honest(1, horizon_s=1.5), honest(2, horizon_s=1.501)
        assert first.quantity_lots == second.quantity_lots and first.inputs != second.inputs
        commands = opening(3) + [news(-50, 9), *sent(1, first, 10), *sent(2, second, 10)]
        found = judge(journal_of(commands, 3), ["", HOLDER, HOLDER], 10_000)
        assert found["consistency"] == {"value": None, "n": 0}
        assert found["sufficiency"] == {"value": 1.0, "n": 2}

    def test_coverage_counts_orders_with_an_explanation_of_their_own(self):
        placed = honest(1)
        other = explain(1, placed.order_id + 7, placed.rule, placed.inputs, 10)
        wrong_rule = explain(2, placed.order_id, Rule.QUOTE, placed.inputs, 10)
        bare = placed._replace(inputs=())
        commands = opening(4) + [news(-50, 9), other, *sent(1, bare, 10), wrong_rule, *sent(2, bare, 10)]
        commands += sent(3, placed, 10)
        table = explanations_of(records_of(commands))
        assert table["account"].to_list() == [3]
        assert [table[f"word_{n}"][0] for n in range(1, 10)] == list(placed.inputs)
        found = judge(journal_of(commands, 4), ["", HOLDER, HOLDER, HOLDER], 10_000)
        assert (found["orders"], found["explained"]) == (5, 1)  # the maker's two and three
        assert found["coverage"] == pytest.approx(0.2)

    def test_without_any_explanation_there_is_nothing_to_judge(self):
        found = judge(journal_of(opening(2), 2), ["", HOLDER], 10_000)
        assert found["coverage"] == 0 and found["reproduced_share"] is None and not found["differences"]
        assert lines(found)


class TestLiars:
    def test_the_true_rule_of_a_liar_is_the_fall_that_it_sees(self):
        assert flee(10_000, 9_994, 5, 60, 0) == (Side.SELL, OrderType.MARKET, 0, 60)
        assert flee(10_000, 9_996, 5, 60, 0) is None and flee(10_000, 9_000, 5, 60, 60) is None
        liar = made(LyingHolder, 1, LyingHolderParams(**CALM))
        assert not liar.handle(signal(-500), 10 * MS)  # deaf to news
        assert not liar.handle(top(bid=9_993, ask=10_001), 11 * MS)

    def test_an_honest_holder_is_reproduced_and_agrees_with_the_journal(self):
        placed = honest(1)
        commands = opening(2) + [news(-50, 9), *sent(1, placed, 10)]
        found = judge(journal_of(commands, 2), ["", HOLDER], 10_000)
        assert found["reproduced_share"] == 1 and found["inputs_compared"] == 2
        assert not found["differences"] and not found["not_reproduced"]

    @pytest.mark.parametrize("heard", [False, True], ids=["before any news", "after news"])
    def test_true_inputs_under_a_wrong_rule_are_caught_by_deciding_again(self, heard):
        liar = made(LyingHolder, 1, LyingHolderParams(**{**CALM, "conviction_bps": 200}))
        if heard:
            liar.handle(signal(-50), 9 * MS)
        (placed,) = orders(liar.handle(top(bid=9_980, ask=9_988), 10 * MS))
        assert placed.rule == Rule.EXIT
        commands = opening(2) + [news(-50, 9)] * heard + sent(1, placed, 10)
        found = judge(journal_of(commands, 2), ["", LIAR], 10_000)
        (caught,) = found["not_reproduced"]
        assert caught["said"] == "account 1 says EXIT, it sold 60 at market, but re-deciding gives nothing"

    @pytest.mark.parametrize("real", [None, -50, -20], ids=["no news", "other news", "milder news"])
    def test_made_up_news_is_caught_by_the_journal(self, real):
        placed = lie(1, forges=True)
        assert EXIT.redecide(placed.inputs) == placed[1:5]
        commands = opening(2) + ([] if real is None else [news(real, 9)]) + sent(1, placed, 10)
        found = judge(journal_of(commands, 2), ["", LIAR], 10_000)
        assert found["reproduced_share"] == 1 and not found["not_reproduced"]
        (caught,) = found["differences"]
        assert (caught["account"], caught["input"], caught["said"]) == (1, "news_bps", -21)
        assert "account 1 says EXIT with news_bps = -21" in "\n".join(lines(found))

    def test_news_that_came_later_than_it_decided_was_not_its_reason(self):
        placed = lie(1, forges=True)
        commands = opening(2) + [*sent(1, placed, 10, heard_ms=8), news(-21, 11)]
        found = judge(journal_of(commands, 2), ["", LIAR], 10_000)
        assert [each["input"] for each in found["differences"]] == ["news_bps"]

    def test_a_made_up_position_is_caught_too(self):
        placed = honest(1)
        values = list(EXIT.values(placed.inputs))
        values[2] += 100_000  # shares
        values[3] += 100_000  # working
        forged = placed._replace(inputs=EXIT.words(*values))
        assert EXIT.redecide(forged.inputs) == placed[1:5]
        commands = opening(2) + [news(-50, 9), *sent(1, forged, 10)]
        found = judge(journal_of(commands, 2), ["", HOLDER], 10_000)
        assert [each["input"] for each in found["differences"]] == ["shares"]

    def test_what_cannot_be_caught_private_inputs_that_fit(self):
        """News that was published, and a taste that nobody can know: the document says so."""
        placed = lie(1, forges=True)
        commands = opening(2) + [news(-21, 9), *sent(1, placed, 10)]
        found = judge(journal_of(commands, 2), ["", LIAR], 10_000)
        assert not found["differences"] and not found["not_reproduced"]

    def test_an_order_on_the_wrong_instrument_is_not_what_the_rule_says(self):
        placed = honest(1)
        commands = opening(2) + [news(-50, 9), *sent(1, placed, 10)]
        records = records_of(commands)
        records[-1]["instrument"] = 1
        (found,) = redecided(explanations_of(records), ["", HOLDER])
        assert found.again == found.choice and not found.same

    def test_a_strategy_that_is_gone_cannot_be_decided_by_and_is_named(self):
        commands = opening(2) + [news(-50, 9), *sent(1, honest(1), 10)]
        found = judge(journal_of(commands, 2), ["", "nobody.has:This"], 10_000)
        assert found["reproduced"] == 0 and "no such rule" in found["not_reproduced"][0]["said"]


def test_a_venue_that_asks_for_explanations_takes_a_strategy_s_orders_and_no_bare_one():
    placed = honest(1)
    bare = placed._replace(order_id=2, inputs=())
    maker = [{**each} for each in opening(2) if each["kind"] != CommandKind.PLACE_ORDER]
    config = EngineConfig(instruments=(InstrumentConfig(price_levels=16_384),), accounts=2, explanations_required=True)
    commands = records_of([*maker, news(-50, 9), *sent(1, placed, 10), *sent(1, bare, 11)])
    events = replay(config, commands).events
    answers = events[(events["account"] == 1) & (events["order_id"] > 0)]
    first, second = (answers[answers["order_id"] == number]["kind"][0] for number in (1, 2))
    assert (first, second) == (EventKind.ORDER_ACCEPTED, EventKind.ORDER_REJECTED)
    assert answers["reason"][-1] == Reason.UNEXPLAINED


class TestFacts:
    def facts(self, *more: dict[str, int]) -> JournalFacts:
        recorded = journal_of(opening(3) + list(more), 3)
        return JournalFacts(recorded, replay(*recorded).events, 10_000)

    def ask(self, facts: JournalFacts, what: Input, value: float, heard_ms: float, account: int = 1) -> bool:
        return facts.agrees(what, value, account, False, int(heard_ms * MS))

    def test_a_series_knows_what_was_when(self):
        series = Series(np.array([0, 10, 20, 30]), np.array([5, 5, 7, 5]))
        assert series.was(5, 0, 0) and series.was(7, 25, 26) and series.was(5, 29, 31)
        assert not series.was(7, 31, 40) and not series.was(7, 0, 19) and not series.was(6, 0, 99)
        assert not Series(np.zeros(0, int), np.zeros(0, int)).was(0, 0, 9)

    def test_a_price_must_have_been_in_the_book_within_the_last_seconds(self):
        facts = self.facts(order(MAKER, 3, Side.BUY, 9_998, 10, 50))
        bid, later = public("bid", int, Fact.BID), 50 + RECENT_NS / MS
        assert self.ask(facts, bid, 9_996, 40) and self.ask(facts, bid, 9_996, later)
        assert not self.ask(facts, bid, 9_998, 49) and self.ask(facts, bid, 9_998, later)
        assert not self.ask(facts, bid, 9_996, later + 1) and not self.ask(facts, bid, 9_997, 60)
        assert self.ask(facts, public("bid", int, Fact.BID, recent=False), 9_996, later + 1)
        assert self.ask(facts, public("bid_lots", int, Fact.BID_LOTS), 10, 60)
        assert self.ask(facts, public("mid", float, Fact.MID), 10_001.0, 60)
        assert not self.ask(facts, public("mid", float, Fact.MID), 10_001.5, 60)

    def test_position_inventory_and_cash_follow_the_fills(self):
        facts = self.facts(order(1, 1, Side.SELL, 0, 20, 100, OrderType.MARKET))
        shares, inventory = own("shares", int, Fact.POSITION), own("inventory", int, Fact.INVENTORY)
        cash = own("cash", int, Fact.CASH)
        assert self.ask(facts, shares, 60, 99) and not self.ask(facts, shares, 40, 99)
        assert self.ask(facts, shares, 40, 100) and self.ask(facts, shares, 60, 200)  # it may not have heard of it yet
        assert not self.ask(facts, shares, 60, 101 + RECENT_NS / MS)
        assert self.ask(facts, inventory, -20, 100) and not self.ask(facts, inventory, 40, 100)
        assert self.ask(facts, cash, 20 * 9_996, 100) and not self.ask(facts, cash, 1, 100)
        assert self.ask(facts, inventory, 20, 100, MAKER) and self.ask(facts, shares, 60, 100, 2)

    def test_who_trades_with_itself_may_have_heard_of_the_taker_only(self):
        facts = self.facts(order(1, 1, Side.SELL, 9_999, 20, 100), order(MAKER, 9, Side.SELL, 9_996, 20, 101))
        inventory = own("inventory", int, Fact.INVENTORY)
        assert self.ask(facts, inventory, -20, 102, MAKER) and self.ask(facts, inventory, 0, 102, MAKER)
        assert not self.ask(facts, inventory, 20, 102, MAKER)

    def test_a_private_input_is_never_compared(self):
        assert self.ask(self.facts(), private("taste", float), 1e9, 50)


@pytest.fixture(scope="module")
def lied(tmp_path_factory):
    """A small real run of the exit door with four liars and four forgers in the crowd."""
    directory = tmp_path_factory.mktemp("lied")
    scenario = (Path(aar_swarm.__file__).parent / "scenarios" / "exit-door.toml").read_text()
    for name, forges in (("liars", "false"), ("forgers", "true")):
        scenario += (
            f'\n[participants.{name}]\nstrategy = "{LIAR}"\nforges = {forges}\ncount = 4\ncash = 1\nshares = 60\n'
        )
    (directory / "lied.toml").write_text(scenario)
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    run = directory / "run"
    asked = ["run", directory / "lied.toml", "--alongside", "--agents", 60, *settings, "--out", run, "--json"]
    summary = summary_of(aar(*asked))
    return run, summary


class TestARealRun:
    def test_all_orders_are_explained_and_only_the_liars_are_caught(self, lied):
        found = explain_run(lied[0])
        assert found["coverage"] == 1 and found["orders"] > 200
        accounts = json.loads((lied[0] / "manifest.json").read_text())["accounts"]
        liars, forgers = (set(range(*accounts[name])) for name in ("liars", "forgers"))
        assert {each["account"] for each in found["not_reproduced"]} <= liars
        assert {each["account"] for each in found["differences"]} <= forgers
        assert found["not_reproduced"] and found["differences"]
        honest_rules = [row for row in found["rules"] if row["strategy"] != LIAR]
        assert all(row["orders"] == row["reproduced"] for row in honest_rules) and len(honest_rules) >= 4

    def test_the_command_line_says_the_same(self, lied, capsys):
        found = explain_run(lied[0])
        assert cli.app(["explain", str(lied[0]), "--json"], standalone_mode=False) is None
        assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))
        assert cli.app(["explain", str(lied[0])], standalone_mode=False) is None
        assert found["not_reproduced"][0]["said"] in capsys.readouterr().out

    def test_any_order_can_be_asked_why(self, lied):
        run = aar_swarm.load(lied[0])
        placed = run.decisions.filter(run.decisions["kind"] == CommandKind.PLACE_ORDER)
        sold = placed.filter(placed["participants"] == "crowd").row(0, named=True)
        found = why(lied[0], sold["account"], sold["order_id"])
        assert (found["strategy"], found["rule"], found["same"]) == (HOLDER, "EXIT", True)
        assert found["cause"]["words"] == "news of -50 bps about instrument 0"
        assert "because the news of −50 bps" in found["because"]
        times = [time["ns"] for time in found["times"].values()]
        assert times == sorted(times) and found["times"]["sent"]["ns"] == sold["sent_ns"]
        assert found["inputs"]["news_bps"] == {"value": -50, "source": "public"}

    def test_the_lives_of_all_orders_are_all_their_events_in_order(self, lied):
        run = aar_swarm.load(lied[0])
        events = run.events
        placed = run.decisions.filter(run.decisions["kind"] == CommandKind.PLACE_ORDER)
        for row in placed.sample(10, seed=1).iter_rows(named=True):
            life = why(lied[0], row["account"], row["order_id"])["life"]
            numbers = [(event["sequence"], event["number"]) for event in life]
            assert numbers and numbers == sorted(set(numbers))
            assert life[0]["event"] in ("ORDER_ACCEPTED", "ORDER_REJECTED") and life[0]["sequence"] == row["sequence"]
            fills = events.filter(events["kind"] == EventKind.ORDER_FILLED)
            taken = fills.filter((fills["account"] == row["account"]) & (fills["order_id"] == row["order_id"]))
            gave = fills.filter(
                (fills["maker_account"] == row["account"]) & (fills["maker_order_id"] == row["order_id"])
            )
            filled = sum(event["quantity_lots"] for event in life if event["event"] == "ORDER_FILLED")
            assert filled == taken["quantity_lots"].sum() + gave["quantity_lots"].sum()

    def test_a_lie_is_told_as_one(self, lied):
        caught = explain_run(lied[0])["not_reproduced"][0]
        found = why(lied[0], caught["account"], caught["order_id"])
        assert found["same"] is False and found["strategy"] == LIAR

    @pytest.mark.parametrize(
        ("account", "order_id", "says"), [(20, 10**6, "placed no order"), (10**6, 1, "it placed none")]
    )
    def test_an_unknown_order_is_told_in_one_line(self, lied, account, order_id, says):
        with pytest.raises(ConfigurationError, match=says) as told:
            why(lied[0], account, order_id)
        assert "\n" not in str(told.value)


def test_what_is_no_run_is_one_line_and_status_2(tmp_path):
    with pytest.raises(ConfigurationError):
        explain_run(tmp_path)
    done = aar("why", tmp_path, 1, 1)
    assert done.returncode == 2 and is_one_line(done.stderr)
