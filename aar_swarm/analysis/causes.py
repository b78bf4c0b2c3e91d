"""What caused what, command by command: each command's cause, the news that it goes back to, and how many links away.

Owns the graph command → command. It is made of what the journal holds: the last message that a participant had heard
when it decided (cause_sequence), the fills, the marks and the phases. Knows nothing of money; docs/postmortem.md says
what is fact and what is convention.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from aar_swarm.agents.base import Rule
from aar_swarm.analysis.session import MAIN, Session
from exchange.clock import SECOND
from exchange.state import Array
from exchange.types import DECISION_COMMANDS, CommandKind, EventKind

FROM_A_VENDOR = (Rule.ACT_ON_VALUATION, Rule.RETURN_TO_BENCHMARK)
"""Rules that act on what a vendor said, which is not in the journal: their decisions are roots."""
_LEAVING = (Rule.EXIT, Rule.EXIT_OVERDUE, Rule.LEAVE_EARLY)
"""Rules of one plan: the slices of an exit."""
_OF_A_SUPERVISOR = range(30, 40)
"""Kinds of commands; quantity_lots is what it saw."""
_DECISIONS = frozenset(int(kind) for kind in DECISION_COMMANDS)


class Link(IntEnum):
    """How a command goes back to its cause."""

    ROOT = 0
    """It does not: news, the operator, or what is outside the journal."""
    HEARD = 1
    """The last message that the participant had heard when it decided told of that command, or, if that one made no
    event, of the last one before it that did: market data names the last command before it, whatever it was."""
    PLAN = 2
    """It goes on with what the same participant began by the same rule."""
    MARK = 3
    """A revaluation, and the command that lowered the mark most since the one before (that one's own sales too)."""
    CONTINUED = 4
    """A revaluation before which no price fell: it goes on with what the one before did."""
    PHASE = 5
    """A timer, and what started the phase that it ends."""
    EVIDENCE = 6
    """A supervisor's order, and what it saw."""
    ARMED = 7
    """A revaluation that follows from nothing but that there was a command: the first one since the one before."""


class Causes(NamedTuple):
    """Of n commands; sequences count from 1."""

    cause: Array  # int64[n]: the sequence of the command that caused it; 0: a root
    link: Array  # int64[n]: a Link
    root: Array  # int64[n]: the sequence of the root; its own if it is one
    depth: Array  # int64[n]: links to the root; what a vendor said counts as one


def last_prices(tops: Array, fills: Array, opening_ticks: float) -> Array:
    """float64[n], ticks: the last trade's price after each command; before any trade opening_ticks."""
    last = np.full(len(tops), float(opening_ticks))
    if len(fills):
        traded = fills["sequence"] - 1
        price, at = np.zeros(len(tops)), np.zeros(len(tops), np.int64)
        price[traded] = fills["price_ticks"]  # of several fills of a command the last
        at[traded] = traded
        last[traded[0] :] = price[np.maximum.accumulate(at)][traded[0] :]
    return last


def mids(tops: Array, fills: Array, opening_ticks: float) -> Array:
    """float64[n], ticks: the mid after each command, or last_prices while a side is empty."""
    two_sided = (tops["bid_lots"] > 0) & (tops["ask_lots"] > 0)
    return np.where(two_sided, (tops["bid_ticks"] + tops["ask_ticks"]) / 2, last_prices(tops, fills, opening_ticks))


def changes(path: Array) -> Array:
    """float64[n]: what each command did to the mid."""
    return np.diff(path, prepend=path[:1])


def trace(session: Session) -> Causes:
    """Follow every command back.

    Where a decision has two links (what was heard, and the plan it belongs to), the one with the more recent root
    counts: news reaches whoever hears of what it made others do.
    """
    commands = session.commands
    falls = _mark_changes(session)
    by_index = session.config.margin is not None and session.config.margin.mark == "index"
    phases = _phase_starts(session)
    count = len(commands)
    told = np.zeros(count + 1, np.int64)
    told[session.events["sequence"]] = session.events["sequence"]
    told = np.maximum.accumulate(told)  # of each sequence: the last one up to it that made an event
    cause, link, root, depth = (np.zeros(count, np.int64) for _ in range(4))
    plans: dict[tuple[int, int], int] = {}
    revalued = indexed = 0  # the sequences of the last ones
    columns = ("kind", "account", "rule", "cause_sequence", "instrument", "quantity_lots")
    rows = zip(*(commands[name].tolist() for name in columns), strict=True)
    for at, (kind, account, rule, heard, instrument, amount) in enumerate(rows):
        sequence = at + 1
        found, by = 0, Link.ROOT
        if kind in _DECISIONS:
            key = (account, int(Rule.EXIT) if rule in _LEAVING else rule)
            if rule not in FROM_A_VENDOR:
                found, by = _of_decision(int(told[heard]) if 0 < heard < sequence else 0, plans.get(key, 0), root)
            plans[key] = sequence
        elif kind == CommandKind.REVALUE:
            goes_on = bool(revalued) and told[revalued] == revalued
            found, by = _of_revaluation(falls, revalued, sequence, indexed if by_index else 0, goes_on)
            revalued = sequence
        elif kind == CommandKind.PUBLISH_INDEX:
            indexed = sequence
        elif kind == CommandKind.TIMER:
            starts = phases.get(instrument, np.zeros(0, np.int64))
            before = int(np.searchsorted(starts, sequence))
            found, by = (int(starts[before - 1]), Link.PHASE) if before else (0, Link.ROOT)
        elif kind in _OF_A_SUPERVISOR and 0 < amount < sequence:
            found, by = amount, Link.EVIDENCE
        cause[at], link[at] = found, by if found else Link.ROOT
        root[at] = root[found - 1] if found else sequence
        depth[at] = depth[found - 1] + 1 if found else int(kind in _DECISIONS and rule in FROM_A_VENDOR)
    return Causes(cause, link, root, depth)


def _mark_changes(session: Session) -> Array:
    """float64[n]: what each command did to the mark (the mid, or the last price, as the venue has it), of the opening
    price; with a stablecoin, the lower of the two instruments' changes."""
    marks = last_prices if session.config.margin is not None and session.config.margin.mark == "last" else mids
    opening = session.scenario.instrument.opening_ticks
    falls = changes(marks(session.tops, session.fills, opening)) / opening
    coin = session.config.stablecoin
    if session.coin_tops is not None and coin is not None:
        of_coin = changes(marks(session.coin_tops, session.fills_of(coin.instrument), coin.par_ticks)) / coin.par_ticks
        falls = np.minimum(falls, of_coin)
    return falls


def _of_decision(heard: int, plan: int, root: Array) -> tuple[int, Link]:
    if heard and (not plan or root[heard - 1] >= root[plan - 1]):
        return heard, Link.HEARD
    return plan, Link.PLAN


def _of_revaluation(falls: Array, before: int, sequence: int, indexed: int, goes_on: bool) -> tuple[int, Link]:
    """before: the sequence of the revaluation before, 0 if none; indexed: of the last index, if that is the mark;
    goes_on: whether the one before did anything."""
    if indexed > before:
        return indexed, Link.MARK
    since = falls[max(before - 1, 0) : sequence - 1]
    if len(since) and since.min() < 0:
        return max(before - 1, 0) + int(since.argmin()) + 1, Link.MARK
    if goes_on or before + 1 == sequence:
        return before, Link.CONTINUED
    return before + 1, Link.ARMED


def _phase_starts(session: Session) -> dict[int, Array]:
    changed = session.events[session.events["kind"] == EventKind.PHASE_CHANGED]
    return {
        int(number): changed["sequence"][changed["instrument"] == number] for number in np.unique(changed["instrument"])
    }


def path_to(causes: Causes, sequence: int) -> list[int]:
    """The sequences from the root to a command, both included."""
    found = [sequence]
    while causes.cause[found[-1] - 1]:
        found.append(int(causes.cause[found[-1] - 1]))
    return found[::-1]


def root_labels(session: Session, causes: Causes) -> list[str]:
    """Of each command, what its root was, in words; roots that are the same news have the same words."""
    known: dict[int, str] = {}
    vendors = session.scenario.vendors
    declared = session.events[session.events["kind"] == EventKind.LOGGED_ON] if vendors else session.events[:0]
    asked = dict(zip(declared["account"].tolist(), (declared["maker_order_id"] - 1).tolist(), strict=True))

    def label(sequence: int) -> str:
        command = session.commands[sequence - 1]
        kind, account = int(command["kind"]), int(command["account"])
        if kind == CommandKind.PUBLISH_SIGNAL:
            bps = int(command["quantity_lots"])
            what = "" if command["instrument"] == MAIN else " on the stablecoin"
            return f"the signal of {bps:+,d} bps{what}" if bps else "the signal (a public moment, 0 bps)"
        if kind == CommandKind.OPEN_SESSION:
            return "the opening: no news"
        if kind == CommandKind.PUBLISH_INDEX:
            return "a price published elsewhere (index)"
        if kind in _OF_A_SUPERVISOR:
            return "an operator's order"
        if kind in _DECISIONS:
            group = session.groups[account] if 0 <= account < len(session.groups) else "?"
            if int(command["rule"]) not in FROM_A_VENDOR:
                return f"{group} of their own accord"
            vendor = asked.get(account)
            since_s = (int(command["received_ns"]) - (session.opened_ns or 0)) / SECOND
            return _vendor_said(session, vendor, int(command["rule"]), since_s)
        return CommandKind(kind).name.lower().replace("_", " ")

    found = []
    for root in causes.root.tolist():
        if root not in known:
            known[root] = label(root)
        found.append(known[root])
    return found


def _vendor_said(session: Session, vendor: int | None, rule: int, since_open_s: float) -> str:
    vendors = session.scenario.vendors
    name = "a vendor" if vendor is None else f"vendor {vendor}"
    if rule == Rule.RETURN_TO_BENCHMARK:
        return f"{name} withdrew its valuations"
    if vendors is not None and (vendors.fault_bps or vendors.fault_factor):
        hit = vendors.fault_in == "feed" or vendor == vendors.fault_vendor
        if hit and vendors.fault_at_s <= since_open_s < vendors.found_at_s:
            return f"{name}'s faulty valuations"
    return f"{name}'s valuations"
