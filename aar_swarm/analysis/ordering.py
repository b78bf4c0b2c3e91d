"""What decided in which order a stampede came: the network, the machine's scheduler, the agents' computing, or else.

Every racer's time from the signal until the venue took its order in is parted into what the network was to take
(nominal), what it waited for a core, what it computed, what the venue held it, and the rest. Then, for each part in
turn, it is asked which pairs of racers would have come the other way round without it. docs/time.md defines and defends
this; all times in ns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import kendalltau

from aar_swarm.analysis.exit import LEAVING
from aar_swarm.analysis.host_clocks import HostClocks
from aar_swarm.analysis.session import RECORDING, Session
from aar_swarm.analysis.timing import signal_told_ns
from exchange.state import Array
from exchange.types import DECISION_COMMANDS

LEAST_RACERS = 10
"""Fewer, and nothing is said: under 45 pairs, chance alone makes any share."""
DOMINANT = 0.5
"""A part that decided at least so much of what the strongest decided is named beside it."""
LEAST_SHARE = 0.05
"""A part that reverses fewer pairs decided nothing."""
PARTS = ("network", "scheduler", "computing", "sequencing", "rest")


class Race(NamedTuple):
    """The racers, and the parts of each one's way from the signal to its arrival: float64[n], ns; they sum to that."""

    accounts: Array
    arrival: Array
    network: Array
    scheduler: Array
    computing: Array
    sequencing: Array
    rest: Array


def first_answers(session: Session, rows: Array) -> Array:
    """The commands that raced: each account's first after it heard the signal, if the signal was what it answered (it
    heard nothing between) or if it was the first of an exit. A recorded day's account has none."""
    mine = session.after_signal(session.commands[np.isin(session.commands["kind"], DECISION_COMMANDS)])
    if session.signal_ns is None:
        return mine[:0]
    mine = mine[(mine["account"] >= 0) & (mine["account"] < len(session.groups))]
    heard, decided = np.zeros(len(session.groups), np.int64), np.zeros(len(session.groups), np.int64)
    heard[rows["agent_id"]], decided[rows["agent_id"]] = rows["signal_heard_ns"], rows["decided_ns"]
    accounts = mine["account"]
    at_once = mine["heard_ns"] == heard[accounts]
    racing = (mine["sent_ns"] == decided[accounts]) & (at_once | np.isin(mine["rule"], LEAVING))
    mine = mine[racing & (session.groups[accounts] != RECORDING)]
    return mine[np.unique(mine["account"], return_index=True)[1]]


def race(
    session: Session,
    rows: Array,
    timings: Array,
    signal_ns: int,
    up_ns: Array,
    down_ns: Array,
    offsets_ns: Array,
) -> Race | None:
    """The parts of each racer's way; None where the kernel does not count waits or nobody raced.

    Args: rows: the scoreboard as the agents wrote it; timings: the venue's; signal_ns: when the venue had taken the
    signal in; up_ns, down_ns: nominal one-way delays by account, to the venue and from it; offsets_ns: venue's clock
    less that of the account's host, which only the bound on the wait in sending needs.
    """
    answers = first_answers(session, rows)
    answers = answers[answers["sequence"] <= len(timings)]
    known = rows[rows["waits_known"] != 0] if "waits_known" in (rows.dtype.names or ()) else rows[:0]
    answers = answers[np.isin(answers["account"], known["agent_id"])]
    if not len(answers):
        return None
    accounts = answers["account"].astype(np.int64)
    places = {int(agent): at for at, agent in enumerate(known["agent_id"])}
    own = known[[places[account] for account in accounts.tolist()]]
    arrival = (answers["received_ns"] - signal_ns).astype(float)
    network = (up_ns + down_ns)[accounts].astype(float)
    arrived_ns = timings["arrived_ns"][answers["sequence"] - 1]
    held = (answers["received_ns"] - arrived_ns).astype(float)
    transit = arrived_ns - (answers["sent_ns"] + offsets_ns[accounts]) - up_ns[accounts]
    # Of the wait from the order's sending to its answer, what the way to the venue can have contained.
    sending = np.clip(own["sending_waited_ns"], 0, np.maximum(transit, 0))
    waited = np.minimum(own["stampede_waited_ns"] + sending, np.maximum(arrival - held - network, 0))
    computed = own["stampede_on_core_ns"].astype(float)
    rest = arrival - network - waited - computed - held
    return Race(accounts, arrival, network, waited, computed, held, rest)


def reversed_without(arrival: Array, part: Array) -> float:
    """Share of all pairs that would have arrived the other way round without this part; what ties then is half.

    (1 − τ) / 2 of Kendall's τ-a between the arrivals and the arrivals less the part. 0: it changed no pair's order;
    ½: without it the order is unrelated to that which was seen.
    """
    rest = arrival - part
    if np.ptp(rest) == 0 or np.ptp(arrival) == 0:
        return 0.5
    n = len(arrival)
    tau_b = float(kendalltau(arrival, rest).statistic)
    # From τ-b, which leaves ties out of its norm, to τ-a, which counts a tie as neither.
    pairs = n * (n - 1) / 2
    untied = [pairs - _tied(values) for values in (arrival, rest)]
    return (1 - tau_b * float(np.sqrt(untied[0] * untied[1])) / pairs) / 2


def _tied(values: Array) -> float:
    _, counts = np.unique(values, return_counts=True)
    return float((counts * (counts - 1) / 2).sum())


def ordering(found: Race | None) -> dict[str, Any]:
    """stampede_ordered_by: "scheduler", "network", "mixed", "neither"; null: fewer than LEAST_RACERS, or waits unknown.
    stampede_order: the evidence, null with it.

    The strongest part is that without which most pairs would have been reversed; parts with at least half of its share
    count with it. Only the scheduler: "scheduler"; only the network: "network"; one of these with another: "mixed";
    neither of them: "neither" (computing; sequencing, a speed bump or hold-and-release of the venue's; or the rest). If
    none reverses LEAST_SHARE, the order would be the same without any one of them: "mixed", and deciding is empty.
    """
    if found is None or len(found.accounts) < LEAST_RACERS:
        return {"stampede_ordered_by": None, "stampede_order": None}
    arrival = found.arrival
    shares = {part: reversed_without(arrival, getattr(found, part)) for part in PARTS}
    least = max(LEAST_SHARE, DOMINANT * max(shares.values()))
    deciding = [part for part in PARTS if shares[part] >= least]
    if deciding in (["scheduler"], ["network"]):
        verdict = deciding[0]
    else:
        verdict = "mixed" if {"scheduler", "network"} & set(deciding) or not deciding else "neither"
    centred = arrival - arrival.mean()
    variance = float((centred**2).mean())
    return {
        "stampede_ordered_by": verdict,
        "stampede_order": {
            "racers": len(arrival),
            "deciding": deciding,
            "pairs_reversed_without": {part: round(share, 4) for part, share in shares.items()},
            "share_of_variance": {
                part: round(float((centred * getattr(found, part)).mean()) / variance, 4) if variance else None
                for part in PARTS
            },
            "median_ns": {part: int(np.median(getattr(found, part))) for part in PARTS},
            "spread_ns": {part: _spread(getattr(found, part)) for part in (*PARTS, "arrival")},
            "tau_of_nominal_order": _tau(arrival, found.network + found.computing),
            "tau_of_wait": _tau(arrival, found.scheduler),
        },
    }


def stampede_order(
    session: Session, rows: Array, timings: Array, clocks: HostClocks, link_delays_ns: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """`ordering` of a run. rows: the scoreboard as the agents wrote it; timings: the venue's; link_delays_ns: of each
    account, nominal, to the venue and from it."""
    told_ns = signal_told_ns(session, timings)
    if told_ns is None:
        return ordering(None)
    delays = np.array(link_delays_ns, np.int64)
    half = clocks.base_rtt_ns // 2
    return ordering(race(session, rows, timings, told_ns, delays[:, 0] + half, delays[:, 1] + half, clocks.offset_ns))


def _spread(values: Array) -> int:
    """p90 less p10."""
    low, high = np.quantile(values, (0.1, 0.9))
    return int(high - low)


def _tau(arrival: Array, other: Array) -> float | None:
    """Kendall's τ-b of the two orders; None if one has none."""
    if np.ptp(other) == 0 or np.ptp(arrival) == 0:
        return None
    return round(float(kendalltau(arrival, other).statistic), 4)
