"""What a decision is: a pure function of at most nine named numbers, which travel with the order as words.

Owns the form of a schema and the way between values and words. A strategy gathers the numbers, asks the function what
to do, and sends what it says together with the numbers: there is no second implementation beside the function, so
re-deciding from the words alone gives the action again, bit for bit. docs/explained-trades.md is the document.
"""

import inspect
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from exchange.types import EXPLANATION, OrderType, Side

MAX_INPUTS = len(EXPLANATION)
_BUY, _SELL = int(Side.BUY), int(Side.SELL)


class Source(StrEnum):
    """Where an input comes from, and so who can check it."""

    PUBLIC = "public"
    """In a notice or in market data: anyone could have seen it."""
    OWN = "own"
    """The agent's position, cash or open orders, as the venue reported them."""
    PRIVATE = "private"
    """Its own taste, draw, setting or model's output; nobody else can know it."""


class Fact(StrEnum):
    """What of the journal an input must agree with."""

    SIGNAL = "signal"
    """The bps of a signal that had been published."""
    BID = "bid"
    ASK = "ask"
    BID_LOTS = "bid lots"
    ASK_LOTS = "ask lots"
    TOUCH = "bid or ask"
    MID = "mid"
    """Or the price of a trade, or the opening price, where a side of the book was empty."""
    COIN_MID = "coin mid"
    """Of the stablecoin, or its par."""
    POSITION = "position"
    INVENTORY = "inventory"
    """The position less what it was when the session opened."""
    CASH = "cash"
    VALUE = "public value"
    """The opening price, moved by all signals so far (agents.public_value)."""


class Input(NamedTuple):
    name: str
    form: type[int] | type[float]
    """int: the word as it is; float: its IEEE-754 bits."""
    source: Source
    fact: Fact | None = None
    """None: nothing in the journal says what it was."""
    recent: bool = True
    """False: what it saw, or heard, it may have seen long before it decided."""


def public(name: str, form: type[int] | type[float] = int, fact: Fact | None = None, recent: bool = True) -> Input:
    return Input(name, form, Source.PUBLIC, fact, recent)


def own(name: str, form: type[int] | type[float] = int, fact: Fact | None = None) -> Input:
    return Input(name, form, Source.OWN, fact)


def private(name: str, form: type[int] | type[float] = int) -> Input:
    return Input(name, form, Source.PRIVATE)


class Choice(NamedTuple):
    """What a decision function says to do; None in its place: nothing."""

    side: int
    order_type: int
    price_ticks: int
    quantity_lots: int


def buy(order_type: OrderType, price_ticks: int, quantity_lots: int) -> Choice:
    return Choice(_BUY, int(order_type), price_ticks, quantity_lots)


def sell(order_type: OrderType, price_ticks: int, quantity_lots: int) -> Choice:
    return Choice(_SELL, int(order_type), price_ticks, quantity_lots)


_FLOAT, _WORD = struct.Struct("<d"), struct.Struct("<q")


def word_of(value: float) -> int:
    """An int as it is; a float's IEEE-754 bits as an int64."""
    if isinstance(value, float):
        found: int = _WORD.unpack(_FLOAT.pack(value))[0]
        return found
    return int(value)


def value_of(word: int, form: type[int] | type[float]) -> float:
    """The way back, exactly."""
    if form is int:
        return word
    found: float = _FLOAT.unpack(_WORD.pack(word))[0]
    return found


@dataclass(frozen=True)
class Decision:
    """One rule of one strategy: the function, its inputs in the order of its parameters, and the sentence."""

    choose: Callable[..., Choice | None]
    """Pure: of these numbers alone."""
    inputs: tuple[Input, ...]
    because: Callable[[SimpleNamespace], str]
    """The reason in words, of the inputs by name."""
    coin: bool = False
    """It trades the stablecoin."""
    _values: struct.Struct = field(init=False, repr=False, compare=False)
    _words: struct.Struct = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [each.name for each in self.inputs]
        if names != list(inspect.signature(self.choose).parameters) or len(names) > MAX_INPUTS:
            raise TypeError(
                f"{self.choose.__qualname__}: its inputs are {names}; at most {MAX_INPUTS}, as it names them"
            )
        forms = "".join("q" if each.form is int else "d" for each in self.inputs)
        object.__setattr__(self, "_values", struct.Struct("<" + forms))
        object.__setattr__(self, "_words", struct.Struct(f"<{len(forms)}q"))

    def words(self, *values: float) -> tuple[int, ...]:
        return self._words.unpack(self._values.pack(*values))

    def values(self, words: tuple[int, ...]) -> tuple[float, ...]:
        """Of the words of an order; those behind the inputs are of no meaning and must be 0.

        Raises: ValueError.
        """
        count = len(self.inputs)
        if len(words) < count or any(words[count:]):
            raise ValueError(f"{count} inputs, and the words are {words}")
        return self._values.unpack(self._words.pack(*words[:count]))

    def named(self, words: tuple[int, ...]) -> dict[str, float]:
        return {each.name: value for each, value in zip(self.inputs, self.values(words), strict=True)}

    def redecide(self, words: tuple[int, ...]) -> Choice | None:
        """What the function says on these words; None too if they make no sense to it, as made-up ones may."""
        try:
            with np.errstate(all="ignore"):
                return self.choose(*self.values(words))
        except (ArithmeticError, ValueError, TypeError):
            return None


def on_the_coin(decisions: Mapping[int, Decision]) -> dict[int, Decision]:
    """The same decisions about the stablecoin's book."""
    return {rule: replace(decision, coin=True) for rule, decision in decisions.items()}
