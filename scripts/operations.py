"""A made-up stream of orders and cancels for the benchmarks: limit orders, a tenth of them marketable, and cancels.

One instrument around a wandering middle; order ids 1, 2, 3, …; a cancel names an order that was not cancelled before
(it may have been filled). At most 4,000 orders rest. The same layout as the shared workload file has.
"""

import numpy as np

from exchange.state import Array

OPERATION = np.dtype([("op", "u1"), ("side", "u1"), ("price", "<i8"), ("quantity", "<i8"), ("order_id", "<u8")])
CANCEL = 1
PRICE_LEVELS = 1 << 16
_MIDDLE = 30_000
_LEAST_RESTING, _MOST_RESTING = 1000, 4000


def make_operations(count: int, seed: int = 1) -> Array:
    """OPERATION[count]."""
    random = np.random.default_rng(seed)
    kinds = random.random(count)
    middles = _MIDDLE + np.cumsum(random.normal(0, 0.1, count)).astype(np.int64)
    distances = random.geometric(0.1, count)
    picks = random.random(count)
    made = np.zeros(count, OPERATION)
    made["side"] = random.integers(0, 2, count)
    made["quantity"] = random.integers(1, 100, count)
    away = np.where(kinds > 0.9, -distances, distances)  # on the wrong side of the middle: marketable
    made["price"] = middles + np.where(made["side"] == 1, away, -away)
    alive: list[int] = []
    order_id = 0
    for at, kind in enumerate(kinds.tolist()):
        if len(alive) >= _MOST_RESTING or (kind < 0.4 and len(alive) > _LEAST_RESTING):
            pick = int(picks[at] * len(alive))
            made["op"][at] = CANCEL
            made["order_id"][at] = alive[pick]
            alive[pick] = alive[-1]
            alive.pop()
        else:
            order_id += 1
            made["order_id"][at] = order_id
            alive.append(order_id)
    return made
