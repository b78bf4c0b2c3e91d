"""Which messages raced each other for one price of one side: Aquilina, Budish and O'Neill (2022), code appendix §4.

A race may start at an order that is marketable at the best price, for every tick from that price to its limit, or at
any attempt to cancel, for the price of the order. Those who act within the horizon on the same side and price (takes at
it or more aggressive, cancels at exactly it) race if at least two of them are different participants, one takes, one
succeeds and one fails. A take succeeds that gets that price or a better one; it fails if it does not though its limit
would have allowed it. A cancel succeeds that takes off anything; it fails if it is too late.

Owns that rule and its variants. Must not know where messages come from or what a race is worth.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from aar_swarm.races.messages import CANCEL, NOTHING, TAKE, Stream
from exchange.config import Config
from exchange.jit import kernel
from exchange.state import Array
from exchange.types import Side, _record

RACE = _record(
    "book",  # the Side whose resting orders were raced for: SELL is the ask
    "price_ticks",
    "start",  # number of the message that started it, in the stream
    "start_ns",
    "horizon_ns",
    "takes",
    "cancels",
    "participants",
    "successes",
    "failures",
    "first_success",  # number of the message
    "first_failure",
    "cancelled_lots",
)

_US = 1_000
_SELL = int(Side.SELL)


class Detection(Config):
    """What counts as a race. The defaults are the paper's baseline."""

    horizon_us: Annotated[float, Field(gt=0, le=1e6)] = 500.0
    """The longest; a fixed one if `fixed_horizon`."""
    reaction_us: Annotated[float, Field(ge=0)] = 29.0
    """Added to the time from a message to its first answer: nobody reacts to an answer sooner than that."""
    fixed_horizon: bool = False
    participants: Annotated[int, Field(ge=2, le=10**6)] = 2
    takes: Annotated[int, Field(ge=1, le=10**6)] = 1
    cancels: Annotated[int, Field(ge=0, le=10**6)] = 0
    strict_failures: bool = False
    """Only expired orders and cancels that came too late count as failures."""
    strict_successes: bool = False
    """There must be a take that failed and was priced exactly at the race's price."""


@kernel
def _detect(messages, rule, levels, seen, busy_until, races):
    """Returns how many races were written; if there was no room for one more, −1.

    Args: rule: int64[8]: Detection's fields, in ns; seen: int64[accounts], zeros; busy_until: int64[2, levels + 1],
    below any time; races: RACE[m] to fill.
    """
    longest, reaction, fixed, least, least_takes, least_cancels, strict_fail, strict_success = rule
    count = 0
    stamp = 0
    total = messages.shape[0]
    for start in range(total):
        message = messages[start]
        begins = message["time_ns"]
        side = message["book"]
        cancels_it = message["kind"] == CANCEL
        if not cancels_it and message["marketable"] == 0:
            continue
        horizon = longest
        if fixed == 0 and message["outbound_ns"] != 0:
            horizon = min(message["outbound_ns"] - begins + reaction, longest)
        ends = begins + horizon
        first = start
        while first > 0 and messages[first - 1]["time_ns"] == begins:
            first -= 1
        last = start  # the first that is out of reach
        while last < total and messages[last]["time_ns"] <= ends:
            last += 1
        # Prices to look at: from the best one to the limit, or of an unpriced order to where its last fill was; and no
        # further than anyone else reaches, as beyond that one would be alone.
        reach = message["price_ticks"]
        if not cancels_it and (reach == 0 or reach == levels):
            reach = message["worst_ticks"]
            if reach == NOTHING:
                reach = message["ask_ticks"] if side == _SELL else message["bid_ticks"]
        furthest = np.int64(NOTHING)
        for number in range(first, last):
            other = messages[number]
            if other["account"] != message["account"] and other["book"] == side:
                price = other["price_ticks"]
                if price == 0 or price == levels:
                    price = reach
                if furthest == NOTHING or (price > furthest if side == _SELL else price < furthest):
                    furthest = price
        if furthest == NOTHING:
            continue
        step = 1
        price = reach
        beyond = reach + 1
        if not cancels_it and side == _SELL:
            price = message["ask_ticks"]
            beyond = min(reach, furthest) + 1
        elif not cancels_it:
            step = -1
            price = message["bid_ticks"]
            beyond = max(reach, furthest) - 1
        while (price < beyond) if step > 0 else (price > beyond):
            if busy_until[side, price] < begins:
                takes = 0
                cancels = 0
                participants = 0
                successes = 0
                failures = 0
                exact = 0
                cancelled = np.int64(0)
                success = NOTHING
                failure = NOTHING
                stamp += 1
                for number in range(first, last):
                    other = messages[number]
                    if other["book"] != side:
                        continue
                    won = False
                    lost = False
                    if other["kind"] == TAKE:
                        reaches = other["price_ticks"] >= price if side == _SELL else other["price_ticks"] <= price
                        if not reaches:
                            continue
                        takes += 1
                        got = other["best_ticks"]
                        won = got != NOTHING and (got <= price if side == _SELL else got >= price)
                        lost = not won and (strict_fail == 0 or other["expired"] == 1)
                        if lost and other["price_ticks"] == price:
                            exact += 1
                    else:
                        if other["price_ticks"] != price:
                            continue
                        cancels += 1
                        won = other["lots"] > 0
                        lost = not won
                        cancelled += other["lots"]
                    if seen[other["account"]] != stamp:
                        seen[other["account"]] = stamp
                        participants += 1
                    if won:
                        successes += 1
                        if success == NOTHING:
                            success = number
                    if lost:
                        failures += 1
                        if failure == NOTHING:
                            failure = number
                found = participants >= least and takes >= least_takes and cancels >= least_cancels
                found = found and successes >= 1 and failures >= 1 and (strict_success == 0 or exact >= 1)
                if found:
                    if count == races.shape[0]:
                        return -1
                    busy_until[side, price] = ends
                    race = races[count]
                    race["book"] = side
                    race["price_ticks"] = price
                    race["start"] = start
                    race["start_ns"] = begins
                    race["horizon_ns"] = horizon
                    race["takes"] = takes
                    race["cancels"] = cancels
                    race["participants"] = participants
                    race["successes"] = successes
                    race["failures"] = failures
                    race["first_success"] = success
                    race["first_failure"] = failure
                    race["cancelled_lots"] = cancelled
                    count += 1
            price += step
    return count


def detect(stream: Stream, rule: Detection | None = None) -> Array:
    """RACE[r], by the time of their start."""
    rule = rule or Detection()
    words = np.array(
        [
            rule.horizon_us * _US,
            rule.reaction_us * _US,
            rule.fixed_horizon,
            rule.participants,
            rule.takes,
            rule.cancels,
            rule.strict_failures,
            rule.strict_successes,
        ]
    ).astype(np.int64)
    accounts = int(stream.messages["account"].max(initial=0)) + 1
    room = 1024
    while True:
        races = np.zeros(room, RACE)
        busy_until = np.full((2, stream.levels + 1), np.iinfo(np.int64).min)
        count = _detect(stream.messages, words, stream.levels, np.zeros(accounts, np.int64), busy_until, races)
        if count >= 0:
            return races[:count].copy()
        room *= 8
