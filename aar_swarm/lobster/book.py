"""A price-time book in plain Python: what the flow so far has made of the venue's.

Owns: which of our orders rests where, with how much, and whom an incoming order would hit. Must not: know of the
exchange's orders or of the file. It models the venue without other participants; the venue's engine is not used, so
that a conversion needs no compiled code and no accounts.
"""

import itertools
from bisect import bisect_left, insort


class Book:
    """Price-time priority in plain Python: what the flow so far has made of our book.

    A key is a price in ticks with the sign that makes the better key the smaller: bids negative, asks positive.
    """

    def __init__(self) -> None:
        self.keys: tuple[list[int], list[int]] = ([], [])
        self.levels: tuple[dict[int, dict[int, int]], dict[int, dict[int, int]]] = ({}, {})
        """By side, by key: order id -> leaves, in time priority, as a dict keeps its order of insertion."""

    def at(self, side: int, key: int) -> dict[int, int]:
        return self.levels[side].get(key, {})

    def match(self, side: int, key: int, quantity: int) -> list[tuple[int, int]]:
        """Match an incoming order of `side`, limited at its own `key`; the fills as (maker, quantity)."""
        fills: list[tuple[int, int]] = []
        keys, levels = self.keys[1 - side], self.levels[1 - side]
        while quantity and keys and keys[0] <= -key:
            level_key = keys[0]
            for order_id, leaves in list(itertools.islice(levels[level_key].items(), quantity)):
                fills.append((order_id, min(leaves, quantity)))
                self.take(1 - side, level_key, *fills[-1])
                quantity -= fills[-1][1]
                if not quantity:
                    break
        return fills

    def rest(self, side: int, key: int, order_id: int, quantity: int) -> None:
        if key not in self.levels[side]:
            insort(self.keys[side], key)
            self.levels[side][key] = {}
        self.levels[side][key][order_id] = quantity

    def take(self, side: int, key: int, order_id: int, quantity: int) -> None:
        level = self.levels[side][key]
        level[order_id] -= quantity
        if not level[order_id]:
            del level[order_id]
        if not level:
            del self.levels[side][key]
            del self.keys[side][bisect_left(self.keys[side], key)]
