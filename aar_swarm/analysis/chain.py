"""A fall with all that is said of it: the session, its causes, its news, its steps in time, and what everyone is worth.

Owns what a step is and what a link of the chain says of a command. Times in ms since the first cause, prices in ticks.
"""

from typing import Any, NamedTuple

import numpy as np

from aar_swarm.agents.base import Rule
from aar_swarm.analysis.causes import Causes, Link, changes, mids, root_labels, trace
from aar_swarm.analysis.fall import Fall, find_fall, first_cause
from aar_swarm.analysis.ledger import follow
from aar_swarm.analysis.session import CROWD, MAIN, RECORDING, Session
from exchange.clock import MS
from exchange.state import Array
from exchange.types import DECISION_COMMANDS, CommandKind, EventKind, Phase

RULES = {int(rule): rule.name for rule in Rule}
LIQUIDATION_ENGINE = "liquidation engine"
_MOST_HALTS = 3


class Chain(NamedTuple):
    """What the parts of a post-mortem are made of."""

    session: Session
    causes: Causes
    labels: list[str]
    path: Array  # float64[n]: the mid after each command
    falls: Array  # float64[n]: what each did to it
    fall: Fall
    cause: str
    cause_sequence: int
    cause_share: float
    is_news: Array  # bool[n]: whether it goes back to the first cause
    subject: str
    """The group whose loss is followed: the crowd, or, where no group is called so, the one that lost most."""

    def ms(self, sequence: int) -> float:
        """Of a command, since the first cause."""
        times = self.session.commands["received_ns"]
        at = min(sequence, len(times)) - 1
        return round((int(times[at]) - int(times[self.cause_sequence - 1])) / MS, 3)

    def mid_before(self, sequence: int) -> float:
        return float(self.path[max(sequence - 2, 0)])


def build(session: Session) -> Chain | None:
    """None: nothing fell."""
    fall = find_fall(session)
    if fall is None:
        return None
    causes = trace(session)
    labels = root_labels(session, causes)
    path = mids(session.tops, session.fills, session.scenario.instrument.opening_ticks)
    falls = changes(path)
    cause, sequence, share = first_cause(fall, causes, labels, falls)
    is_news = np.array([label == cause for label in labels])
    subject = _subject(session, sequence)
    return Chain(session, causes, labels, path, falls, fall, cause, sequence, share, is_news, subject)


def _subject(session: Session, start: int) -> str:
    if CROWD in session.groups:
        return CROWD
    worth = worths(session, [start, session.close_sequence])
    names = [name for name in dict.fromkeys(session.groups.tolist()) if name != RECORDING]
    lost = {name: float((worth[0] - worth[1])[: len(session.groups)][session.groups == name].sum()) for name in names}
    return max(lost, key=lambda name: lost[name])


def worths(session: Session, sequences: list[int]) -> Array:
    """float64[len(sequences), accounts], minor units: what Session.worth says before each of these commands (in
    ascending order), each event read once."""
    found = []
    sums = None
    done = 0
    for sequence in sequences:
        until = int(np.searchsorted(session.events["sequence"], sequence))
        part = follow(session.config, session.events[done:until])
        done = until
        sums = part if sums is None else type(part)(*(a + b for a, b in zip(sums, part, strict=True)))
        prices = session.prices(sequence)
        worth = sums.cash + sums.lots @ prices
        if session.config.lending:
            worth += sums.collateral * prices[session.config.lending.collateral_instrument]
            worth -= sums.debt * prices[session.config.lending.debt_instrument]
        found.append(worth)
    return np.array(found)


def milestones(chain: Chain) -> list[tuple[int, str]]:
    """(sequence, name) of what begins each step, in time; a step ends where the next begins, the last at the close."""
    session, fall = chain.session, chain.fall
    close = session.close_sequence
    events = session.events[(session.events["sequence"] > chain.cause_sequence) & (session.events["sequence"] < close)]

    def first(*kinds: EventKind) -> int | None:
        found = events["sequence"][np.isin(events["kind"], kinds)]
        return int(found[0]) if len(found) else None

    points: dict[int, str] = {chain.cause_sequence: "first cause"}
    named: list[tuple[int | None, str]] = [
        (fall.left_sequence, "the price leaves its calm range"),
        (first(EventKind.MARGIN_CALLED), "margin calls begin"),
        (first(EventKind.LIQUIDATION_STARTED), "liquidations begin"),
        (first(EventKind.LOAN_LIQUIDATED), "loans are liquidated"),
        (first(EventKind.POSITION_TAKEN_OVER, EventKind.DELEVERAGED), "the book no longer takes the liquidations"),
        (first(EventKind.BAD_DEBT_BOOKED), "bad debt"),
        (fall.half_sequence, "half of the fall"),
        (fall.trough_sequence + 1, "after the trough"),
    ]
    halts = events["sequence"][(events["kind"] == EventKind.INSTRUMENT_HALTED) & (events["instrument"] == MAIN)]
    named += [(int(sequence), "halt") for sequence in halts[:_MOST_HALTS]]
    for sequence in halts[:_MOST_HALTS].tolist():
        again = events[
            (events["sequence"] > sequence)
            & (events["kind"] == EventKind.PHASE_CHANGED)
            & (events["instrument"] == MAIN)
            & (events["value"] == Phase.CONTINUOUS)
        ]
        named.append((int(again["sequence"][0]) if len(again) else None, "trading resumes"))
    for found, name in named:
        if found is not None and chain.cause_sequence <= found < close:
            points[found] = f"{points[found]}; {name}" if found in points and name not in points[found] else name
    if chain.cause_sequence in points and not points[chain.cause_sequence].startswith("first cause"):
        points[chain.cause_sequence] = f"first cause; {points[chain.cause_sequence]}"
    return sorted(points.items())


def describe(chain: Chain, sequence: int) -> dict[str, Any]:
    """One command as a link of the chain."""
    session, at = chain.session, sequence - 1
    command = session.commands[at]
    kind, account = int(command["kind"]), int(command["account"])
    decided = kind in DECISION_COMMANDS
    who = str(session.groups[account]) if decided and 0 <= account < len(session.groups) else None
    if kind == CommandKind.REVALUE:
        who = LIQUIDATION_ENGINE
    return {
        "sequence": sequence,
        "ms": chain.ms(sequence),
        "command": CommandKind(kind).name,
        "account": account if decided else None,
        "participants": who,
        "order_id": int(command["order_id"]) if decided else None,
        "rule": RULES.get(int(command["rule"]), str(int(command["rule"]))) if decided else None,
        "lots": int(command["quantity_lots"]) if decided else None,
        "link": Link(int(chain.causes.link[at])).name,
        "cause_sequence": int(chain.causes.cause[at]) or None,
        "root": chain.labels[at],
        "depth": int(chain.causes.depth[at]),
        "mid_before_ticks": chain.mid_before(sequence),
        "mid_after_ticks": float(chain.path[at]),
    }
