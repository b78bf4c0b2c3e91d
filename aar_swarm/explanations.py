"""Explained orders for who reads a journal: what a rule says on recorded words, and the sentence that it makes.

Owns the way from the name of a strategy (`module:Class`) to its decisions. What they are is theirs: see
aar_swarm.agents.decision and docs/explained-trades.md. Reads nothing.
"""

import re
from functools import cache
from types import SimpleNamespace

from aar_swarm.agents.decision import Choice, Decision, Fact, Input, Source, value_of, word_of
from aar_swarm.names import strategy_class
from exchange.types import OrderType, Side

__all__ = ["Choice", "Decision", "Fact", "Input", "Source", "decision_of", "in_words", "redecide", "told", "value_of"]
__all__ += ["word_of"]


@cache
def decision_of(strategy: str, rule: int) -> Decision | None:
    """How a strategy decides by a rule; None: it has no such rule, or decides without explaining it.

    Raises: ConfigurationError: there is no such strategy.
    """
    return strategy_class(strategy).decisions.get(rule)


def redecide(strategy: str, rule: int, words: tuple[int, ...]) -> Choice | None:
    """What the rule says to do on these words and nothing else; None: nothing."""
    decision = decision_of(strategy, rule)
    return None if decision is None else decision.redecide(words)


def in_words(choice: Choice | None) -> str:
    """An action, as in `sold 60 at market`: that is what it asked for, not what it got."""
    if choice is None:
        return "did nothing"
    did = "bought" if choice.side == Side.BUY else "sold"
    if choice.order_type == OrderType.MARKET:
        return f"{did} {choice.quantity_lots} at market"
    if choice.order_type == OrderType.IOC:
        return f"{did} up to {choice.quantity_lots} at {choice.price_ticks} or better"
    offered = "bid for" if choice.side == Side.BUY else "offered"
    return f"{offered} {choice.quantity_lots} at {choice.price_ticks}"


def told(strategy: str, rule: int, words: tuple[int, ...], choice: Choice | None = None) -> str:
    """One sentence: what it did and the reason that it gave. choice: what it did; None: what re-deciding gives."""
    decision = decision_of(strategy, rule)
    did = in_words(choice or redecide(strategy, rule, words))
    if decision is None:
        return f"{did} by a rule that explains nothing"
    try:
        because = decision.because(SimpleNamespace(**decision.named(words)))
    except (ArithmeticError, ValueError, IndexError):
        because = f"of inputs that make no sense to the rule: {words}"
    return re.sub(r"(?<![\w.])-(?=\d|inf)", "−", f"{did} because {because}")
