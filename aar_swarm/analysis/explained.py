"""`aar explain`: are the explanations that orders carry true? From the journal alone, and who runs which strategy.

Four questions, of every order that a participant placed; docs/explained-trades.md says what no answer can catch.

*Coverage*: orders with an explanation, of all.

*Re-decision*: explained orders that the rule's function, on the recorded inputs alone, gives again exactly (instrument,
side, type, price, quantity). The target is all of them.

*Faithfulness* after Dasgupta, Frost and Moshkovitz (ICML 2022), over pairs of explained orders x ≠ x′, whoever placed
them. An explanation e(x) is the rule (its function, which strategies may share) and the words of x; an action is the
instrument, side, type, price and quantity.
Consistency: the mean over x of P(action(x′) = action(x) | e(x′) = e(x)). Sufficiency: the mean over x of
P(action(x′) = action(x) | x′ satisfies e(x)), where x′ satisfies it if it names the same rule and the rule's
function gives the same action on its inputs as on those of x. Each mean is over the n orders for
which there is such an x′.

*Inputs against the journal*: of the inputs whose fact the journal knows, those that were so within the time in which
the agent can have known them (aar_swarm.analysis.journal_facts).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from aar_swarm import results
from aar_swarm.agents.base import Rule
from aar_swarm.analysis.journal_facts import JournalFacts
from aar_swarm.explanations import Choice, Decision, decision_of, in_words
from exchange import journal
from exchange.errors import ConfigurationError
from exchange.replay import replay
from exchange.state import Array
from exchange.types import EXPLANATION, CommandKind

WORDS = tuple(f"word_{number}" for number in range(1, len(EXPLANATION) + 1))
_ACTION = ("instrument", "side", "order_type", "price_ticks", "quantity_lots")
_SHOWN = 20


def explanations_of(commands: Array) -> pl.DataFrame:
    """The explained orders: sequence, account, order_id, rule, heard_ns and the action of the order; word_1 … word_9.

    An order is explained by the EXPLAIN that its account sent last before it, if that has its order_id and rule.
    """
    kinds = commands["kind"]
    found = commands[(kinds == CommandKind.PLACE_ORDER) | (kinds == CommandKind.EXPLAIN)]
    found = found[np.lexsort((found["sequence"], found["account"]))]
    before, order = found[:-1], found[1:]
    explained = (order["kind"] == CommandKind.PLACE_ORDER) & (before["kind"] == CommandKind.EXPLAIN)
    for name in ("account", "order_id", "rule"):
        explained &= before[name] == order[name]
    by_time = np.argsort(order["sequence"][explained])
    before, order = before[explained][by_time], order[explained][by_time]
    names = ("sequence", "account", "order_id", "rule", "heard_ns", *_ACTION)
    columns = {name: np.ascontiguousarray(order[name]) for name in names}
    columns["heard_ns"] = np.minimum(columns["heard_ns"], order["received_ns"])  # nobody hears later than it is heard
    return pl.DataFrame(
        columns | {word: np.ascontiguousarray(before[name]) for word, name in zip(WORDS, EXPLANATION, strict=True)}
    )


class Explained(NamedTuple):
    """One explained order and what re-deciding gives."""

    sequence: int
    account: int
    order_id: int
    rule: int
    heard_ns: int
    instrument: int
    choice: Choice
    words: tuple[int, ...]
    strategy: str
    decision: Decision | None
    again: Choice | None

    @property
    def action(self) -> tuple[int, Choice]:
        return self.instrument, self.choice

    @property
    def reason(self) -> object:
        """What it names as its rule: the function, which strategies may share; or a rule that nobody knows."""
        return (self.strategy, self.rule) if self.decision is None else (self.decision.choose, self.decision.coin)

    @property
    def same(self) -> bool:
        coin = self.decision is not None and self.decision.coin
        return self.again == self.choice and self.instrument == int(coin)


def strategies_of(manifest: dict[str, Any]) -> list[str]:
    """Of each account: its strategy, as module:Class."""
    participants = manifest["scenario"]["participants"]
    found = [""] * max((last for _, last in manifest["accounts"].values()), default=0)
    for name, (first, last) in manifest["accounts"].items():
        found[first:last] = [participants[name]["strategy"]] * (last - first)
    return found


def find_decision(strategy: str, rule: int) -> Decision | None:
    """None too for a user's strategy that is not to be found any more."""
    try:
        return decision_of(strategy, rule)
    except ConfigurationError:
        return None


def redecided(orders: pl.DataFrame, strategies: list[str]) -> list[Explained]:
    """Every explained order, decided anew."""
    found = []
    for row in orders.iter_rows():
        sequence, account, order_id, rule, heard_ns, instrument, *rest = row
        strategy = strategies[account] if 0 <= account < len(strategies) else ""
        decision = find_decision(strategy, rule) if strategy else None
        words = tuple(rest[4:])
        again = None if decision is None else decision.redecide(words)
        choice = Choice(*rest[:4])
        found.append(
            Explained(sequence, account, order_id, rule, heard_ns, instrument, choice, words, strategy, decision, again)
        )
    return found


def agreement(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """The mean over x of P(action(x′) = action(x) | x′ in x's group), x′ ≠ x; n: how many x have one. None of none.

    Args: pairs: (group, action) of each x.
    """
    groups: dict[Any, Counter[Any]] = defaultdict(Counter)
    for group, action in pairs:
        groups[group][action] += 1
    total, count = 0.0, 0
    for actions in groups.values():
        size = actions.total()
        if size > 1:
            count += size
            total += sum(each * (each - 1) for each in actions.values()) / (size - 1)
    return {"value": total / count if count else None, "n": count}


def rule_name(rule: int) -> str:
    return Rule(rule).name if rule in Rule._value2member_map_ else str(rule)


def _differences(orders: list[Explained], facts: JournalFacts) -> tuple[int, list[dict[str, Any]]]:
    """How many inputs could be compared, and of each account and input that ever differed: how often, and the first."""
    compared = 0
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for order in orders:
        decision = order.decision
        if decision is None or any(order.words[len(decision.inputs) :]):
            continue
        for each, value in zip(decision.inputs, decision.values(order.words), strict=True):
            if each.fact is None:
                continue
            compared += 1
            if facts.agrees(each, value, order.account, decision.coin, order.heard_ns):
                continue
            key = (order.account, each.name)
            if key not in found:
                found[key] = {
                    "account": order.account,
                    "strategy": order.strategy,
                    "rule": rule_name(order.rule),
                    "input": each.name,
                    "source": each.source.value,
                    "fact": each.fact.value,
                    "said": value,
                    "order_id": order.order_id,
                    "sequence": order.sequence,
                    "orders": 0,
                }
            found[key]["orders"] += 1
    return compared, sorted(found.values(), key=lambda each: (each["account"], each["sequence"]))


def _not_reproduced(orders: list[Explained]) -> list[dict[str, Any]]:
    """The accounts whose orders re-deciding does not give again, each with the first of them in words."""
    found: dict[int, dict[str, Any]] = {}
    for order in orders:
        if order.same:
            continue
        if order.account not in found:
            gives = (
                f"re-deciding gives {in_words(order.again) if order.again else 'nothing'}"
                if order.decision is not None
                else "its strategy has no such rule to re-decide by"
            )
            rule = rule_name(order.rule)
            said = f"account {order.account} says {rule}, it {in_words(order.choice)}, but {gives}"
            found[order.account] = {
                "account": order.account,
                "strategy": order.strategy,
                "order_id": order.order_id,
                "sequence": order.sequence,
                "orders": 0,
                "said": said,
            }
        found[order.account]["orders"] += 1
    return [found[account] for account in sorted(found)]


def judge(
    recorded: journal.Journal, strategies: list[str], opening_ticks: int, one_clock: bool = True
) -> dict[str, Any]:
    """The four answers for a journal.

    Args: strategies: of each account, module:Class; opening_ticks: of the main instrument; one_clock: of the venue
    and all agents; without it no input is held against the journal: when an agent heard something is not known then.
    """
    placed = int((recorded.commands["kind"] == CommandKind.PLACE_ORDER).sum())
    orders = redecided(explanations_of(recorded.commands), strategies)
    facts = JournalFacts(recorded, replay(*recorded).events, opening_ticks)
    compared, differences = _differences(orders, facts) if one_clock else (0, [])
    table: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for order in orders:
        row = table[order.strategy, rule_name(order.rule)]
        row[0] += 1
        row[1] += order.same
    same = sum(order.same for order in orders)
    return {
        "orders": placed,
        "explained": len(orders),
        "coverage": len(orders) / placed if placed else None,
        "reproduced": same,
        "reproduced_share": same / len(orders) if orders else None,
        "rules": [
            {"strategy": strategy, "rule": rule, "orders": count, "reproduced": again}
            for (strategy, rule), (count, again) in sorted(table.items())
        ],
        "consistency": agreement(((order.reason, order.words), order.action) for order in orders),
        "sufficiency": agreement(
            ((order.reason, order.again), order.action) for order in orders if order.decision is not None
        ),
        "inputs_compared": compared,
        "inputs_differing": sum(each["orders"] for each in differences),
        "differences": differences,
        "not_reproduced": _not_reproduced(orders),
    }


def explain_run(directory: Path) -> dict[str, Any]:
    """The four answers for a run.

    Raises: ConfigurationError; JournalError.
    """
    manifest, recorded = open_run(directory)
    opening_ticks = manifest["scenario"]["instrument"]["opening_ticks"]
    return judge(recorded, strategies_of(manifest), opening_ticks, manifest["clock_bound_ns"] == 0)


def open_run(directory: Path) -> tuple[dict[str, Any], journal.Journal]:
    """Of a run: its manifest and journal. Raises: ConfigurationError; JournalError."""
    if not (directory / results.JOURNAL).is_dir() or not (directory / results.MANIFEST).is_file():
        raise ConfigurationError(results.not_a_run(directory))
    manifest = results.read_json(directory / results.MANIFEST)
    if not isinstance(manifest.get("scenario"), dict) or "accounts" not in manifest or "clock_bound_ns" not in manifest:
        raise ConfigurationError(
            f"{directory / results.MANIFEST}: does not say who there was; take another copy of the run"
        )
    return manifest, journal.read(directory / results.JOURNAL)


def _percent(share: float | None) -> str:
    return "nothing to compare" if share is None else f"{share:.2%}"


def lines(found: dict[str, Any]) -> list[str]:
    """The answers as text."""
    told = [
        f"coverage     {_percent(found['coverage'])}: {found['explained']} of {found['orders']} orders are explained",
        f"re-decision  {_percent(found['reproduced_share'])}: {found['reproduced']} of {found['explained']} exactly",
    ]
    for name in ("consistency", "sufficiency"):
        told.append(f"{name:12} {_percent(found[name]['value'])}, n = {found[name]['n']}")
    told.append(f"inputs       {found['inputs_differing']} of {found['inputs_compared']} differ from the journal")
    for row in found["rules"]:
        strategy = row["strategy"].rpartition(":")[2]
        told.append(f"  {strategy:18} {row['rule']:20} {row['reproduced']:>7} of {row['orders']:>7} reproduced")
    for each in found["not_reproduced"][:_SHOWN]:
        told.append(f"{each['said']} (order {each['order_id']}; {each['orders']} such)")
    for each in found["differences"][:_SHOWN]:
        told.append(
            f"account {each['account']} says {each['rule']} with {each['input']} = {each['said']:g}, and the journal "
            f"has no such {each['fact']} that it could have known (order {each['order_id']}; {each['orders']} such)"
        )
    for key in ("not_reproduced", "differences"):
        if len(found[key]) > _SHOWN:
            told.append(f"… and {len(found[key]) - _SHOWN} more {key.replace('_', ' ')}: see --json")
    return told
