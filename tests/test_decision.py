"""Every order of every strategy carries its decision, and the decision's function alone gives the order again."""

import math
import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aar_swarm.agents
from aar_swarm.agents.background import Background, BackgroundParams
from aar_swarm.agents.base import PlaceOrder, Rule, Strategy, Valuation
from aar_swarm.agents.decision import Choice, Decision, Source, own, private, public
from aar_swarm.agents.holder import Holder, HolderParams
from aar_swarm.agents.market_maker import MarketMaker, MarketMakerParams
from aar_swarm.agents.vendor_fund import VendorFund, VendorFundParams
from aar_swarm.explanations import decision_of, in_words, redecide, told, value_of, word_of
from aar_swarm.lobster import order_flow, read
from aar_swarm.vendors.config import Vendors
from aar_swarm.vendors.model import log_value
from aar_swarm.vendors.service import VendorWorld
from exchange.types import CommandKind, OrderType, Side
from tests.strategy_fuzz import KINDS, MARKET, drive, strategy
from tests.test_agents import OPENED, make, orders, signal, top
from tests.test_lobster import BOOKS, ROWS, texts, write_pair

AGENTS = "aar_swarm.agents."
WORD = st.integers(-(1 << 63), (1 << 63) - 1)
NOT_FUZZED = {"background:Background", "lying_holder:LyingHolder"}  # reads a file; lies


def shipped() -> dict[str, type[Strategy]]:
    found = {}
    for path in Path(aar_swarm.agents.__path__[0]).glob("*.py"):
        module = __import__(AGENTS + path.stem, fromlist=["*"])
        for name, kind in vars(module).items():
            is_strategy = isinstance(kind, type) and issubclass(kind, Strategy)
            if is_strategy and kind.__module__ == module.__name__ and kind.__name__ not in ("Strategy", "OnTheCoin"):
                found[f"{path.stem}:{name}"] = kind
    return found


@cache
def explained(number: int, seed: int, steps: int = 1500) -> list[tuple[str, PlaceOrder]]:
    made = strategy(number, seed)
    name = AGENTS + KINDS[number][0]
    rng = np.random.default_rng([number, seed])
    return [(name, action) for action in drive(made, rng, steps) if isinstance(action, PlaceOrder)]


class TestEveryStrategy:
    def test_is_driven_here(self):
        assert {name for name, _, _ in KINDS} == set(shipped()) - NOT_FUZZED

    @pytest.mark.parametrize("number", range(len(KINDS)), ids=[name for name, _, _ in KINDS])
    def test_its_orders_carry_inputs_on_which_its_rule_gives_them_again(self, number):
        placed = explained(number, 1) + explained(number, 2)
        assert placed
        for name, order in placed:
            assert 0 < len(order.inputs) <= 9
            assert all(type(word) is int and -(1 << 63) <= word < 1 << 63 for word in order.inputs)
            decision = decision_of(name, order.rule)
            assert decision is not None and order.instrument == int(decision.coin)
            assert redecide(name, order.rule, order.inputs) == Choice(*order[1:5])
            padded = (*order.inputs, *[0] * (9 - len(order.inputs)))
            assert redecide(name, order.rule, padded) == Choice(*order[1:5])
            sentence = told(name, order.rule, order.inputs)
            assert sentence.startswith(in_words(Choice(*order[1:5])) + " because ") and "make no sense" not in sentence

    def test_every_rule_of_every_strategy_is_reached(self):
        reached = {
            (name.removeprefix(AGENTS), order.rule)
            for number in range(len(KINDS))
            for seed in (1, 2)
            for name, order in explained(number, seed)
        }
        known = {(name, int(rule)) for name, kind in shipped().items() for rule in kind.decisions}
        assert {pair for pair in known if pair[0] not in NOT_FUZZED} == reached

    @given(st.lists(WORD, min_size=9, max_size=9), st.data())
    def test_words_of_any_kind_are_decided_on_or_refused_but_never_break_anything(self, words, data):
        name = data.draw(st.sampled_from(sorted(shipped())))
        rule = data.draw(st.sampled_from(sorted(shipped()[name].decisions)))
        decision = decision_of(AGENTS + name, rule)
        assert decision is not None
        tail = 9 - len(decision.inputs)
        found = redecide(AGENTS + name, rule, (*words[: 9 - tail], *[0] * tail))
        assert found is None or isinstance(found, Choice)
        assert told(AGENTS + name, rule, (*words[: 9 - tail], *[0] * tail))

    def test_no_input_is_a_field_of_the_action_but_for_a_recorded_day(self):
        for name, kind in shipped().items():
            for decision in kind.decisions.values():
                named = {each.name for each in decision.inputs}
                copied = {"side", "order_type", "price_ticks"} & named
                assert bool(copied) == (name == "background:Background")


class TestWords:
    @given(st.floats())
    def test_a_float_s_word_is_its_bits_and_gives_it_back_exactly(self, value):
        word = word_of(value)
        assert struct.pack("<q", word) == struct.pack("<d", value)
        assert struct.pack("<d", value_of(word, float)) == struct.pack("<d", value)

    @given(WORD)
    def test_an_int_is_its_own_word(self, value):
        assert word_of(value) == value == value_of(value, int)

    def test_vectors(self):
        assert [word_of(value) for value in (0.0, 1.0, -2.0, 7)] == [0, 0x3FF0 << 48, -(1 << 62), 7]

    def test_inputs_must_be_those_that_the_function_names_and_at_most_nine(self):
        with pytest.raises(TypeError):
            Decision(lambda seen, held: None, (public("seen"),), str)
        names = [f"x{number}" for number in range(10)]
        function = eval(f"lambda {', '.join(names)}: None")
        with pytest.raises(TypeError):
            Decision(function, tuple(private(name) for name in names), str)

    def test_words_behind_the_inputs_make_an_explanation_void(self):
        decision = Decision(lambda held: Choice(0, 2, 0, held), (own("held"),), str)
        assert decision.redecide((5, 0, 0)) == Choice(0, 2, 0, 5)
        assert decision.redecide((5, 0, 1)) is None and decision.redecide(()) is None


class TestSentences:
    def test_a_holder_s(self):
        holder = make(Holder, HolderParams(conviction_bps=19, conviction_spread_bps=0, spread_of_tastes=0), shares=60)
        holder.handle(top(), 0)
        (order,) = orders(holder.handle(signal(-50), 0))
        said = told(AGENTS + "holder:Holder", order.rule, order.inputs)
        assert said.startswith(f"sold {order.quantity_lots} at market because the news of −50 bps made its expected")
        assert "return −31.0 bps" in said

    def test_of_nothing_and_of_a_rule_that_nobody_has(self):
        assert told(AGENTS + "holder:Holder", Rule.QUOTE, ()).startswith("did nothing by a rule")
        void = (0,) * 8 + (5,)
        assert told(AGENTS + "holder:Holder", Rule.EXIT, void).startswith("did nothing because")

    def test_actions(self):
        assert in_words(Choice(int(Side.BUY), int(OrderType.LIMIT), 99, 5)) == "bid for 5 at 99"
        assert in_words(Choice(int(Side.SELL), int(OrderType.POST_ONLY), 99, 5)) == "offered 5 at 99"
        assert in_words(Choice(int(Side.BUY), int(OrderType.IOC), 99, 5)) == "bought up to 5 at 99 or better"


class TestTheExplanationDependsOnWhatDecides:
    """The sanity test: an explanation that stays when the model behind it is replaced explains nothing."""

    def valuation(self, seed: int) -> float:
        world = VendorWorld(Vendors.model_validate({"seed": seed, "observation_noise": 0.0}))
        return 10_000 * math.exp(float(log_value(world.model(0), world.world.asset[None])[0]))

    def fund_s(self, valuation: float) -> dict[str, float]:
        made = VendorFund(MARKET, strategy(16, 1).endowment, VendorFundParams(spread_of_tastes=0), strategy(16, 1).rng)
        made.handle(top(), 0)
        (order,) = orders(made.handle(Valuation(valuation, 1, False), 0))
        decision = made.decisions[order.rule]
        return decision.named(order.inputs)

    def test_another_model_gives_another_valuation_as_input_and_only_that(self):
        values = [self.valuation(seed) for seed in (1, 2, 3)]
        found = [self.fund_s(value) for value in values]
        assert [each["valuation"] for each in found] == values and len(set(values)) == 3
        rest = [
            {key: value for key, value in each.items() if key not in ("valuation", "reach_ticks")} for each in found
        ]
        assert rest[0] == rest[1] == rest[2]

    def test_weights_drawn_anew_change_it_too(self):
        world = VendorWorld(Vendors.model_validate({"seed": 1, "observation_noise": 0.0}))
        model = world.model(0)
        shuffled = model._replace(output_weights=np.roll(model.output_weights, 1) * 1.5)
        asset = world.world.asset[None]
        values = [10_000 * math.exp(float(log_value(each, asset)[0])) for each in (model, shuffled)]
        assert self.fund_s(values[0])["valuation"] != self.fund_s(values[1])["valuation"]

    def test_other_tastes_give_other_inputs(self):
        found = []
        for agent in (1, 2):
            holder = make(Holder, HolderParams(conviction_spread_bps=5), shares=60, agent=agent)
            holder.handle(top(), 0)
            (order,) = orders(holder.handle(signal(-80), 0))
            found.append(holder.decisions[order.rule].named(order.inputs))
        differing = {name for name in found[0] if found[0][name] != found[1][name]}
        assert differing == {"before_bps", "horizon_s", "urgency"}
        leans = []
        for lean in (10.0, 90.0):
            maker = make(MarketMaker, MarketMakerParams(lean_ticks=lean))
            maker.handle(OPENED, 0)
            maker.holdings[0] += 100
            placed = orders(maker.handle(signal(-300), 0))
            leans.append({maker.decisions[order.rule].named(order.inputs)["lean_ticks"] for order in placed})
        assert leans[0].isdisjoint(leans[1])


def row_of(kind: type[Strategy], rule: int) -> str:
    """A row of the document's table."""
    mark = {Source.PUBLIC: "P", Source.OWN: "O", Source.PRIVATE: "–"}
    inputs = [
        f"{each.name}{' f' if each.form is float else ''} {mark[each.source]}{'*' if each.fact else ''}"
        for each in kind.decisions[rule].inputs
    ]
    return f"| {kind.__name__} | `{Rule(rule).name}` | {', '.join(inputs)} |"


def test_the_document_s_table_is_the_code_s():
    written = (Path(__file__).parent.parent / "docs" / "explained-trades.md").read_text().splitlines()
    kinds = [kind for name, kind in shipped().items() if name != "lying_holder:LyingHolder"]
    rows = {row_of(kind, rule) for kind in kinds for rule in kind.decisions}
    assert rows == {line for line in written if line.startswith("| ") and "`" in line}


def test_an_order_of_a_recorded_day_carries_its_row(tmp_path):
    file = write_pair(tmp_path, *texts(ROWS, BOOKS))
    made = Background(MARKET, strategy(5, 1).endowment, BackgroundParams(file=str(file)), strategy(5, 1).rng)
    placed = orders(made.actions)
    flow = order_flow(read(file))
    rows = flow["row"][flow["kind"] == CommandKind.PLACE_ORDER].tolist()
    assert placed and [order.inputs[0] for order in placed] == rows
    name = AGENTS + "background:Background"
    assert all(redecide(name, order.rule, order.inputs) == Choice(*order[1:5]) for order in placed)
    assert "in row" in told(name, placed[-1].rule, placed[-1].inputs)
