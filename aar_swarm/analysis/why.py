"""`aar why`: one order of a run, from what its account had heard to what became of it.

Owns the words for it; what the explanation is worth is aar_swarm.analysis.explained's. From the journal, its replay and
the venue's own times.
"""

from pathlib import Path
from typing import Any

import numpy as np

from aar_swarm import results
from aar_swarm.analysis.explained import explanations_of, open_run, redecided, rule_name, strategies_of
from aar_swarm.explanations import Choice, in_words, told
from exchange.clock import MS
from exchange.errors import ConfigurationError
from exchange.replay import replay
from exchange.server import TIMINGS_FILE
from exchange.state import Array
from exchange.types import CommandKind, EventKind, Phase, Reason, Trigger

_PLACED = (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER)


def why(directory: Path, account: int, order_id: int) -> dict[str, Any]:
    """Everything that the run knows of one order.

    Returns: who, its strategy, what it had heard (cause), the times in ns and in ms since the session opened, the rule,
    the inputs by name, the reason in words, whether re-deciding gives the same (None: not explained), and its life: an
    entry an event of the order, numbered as in events.parquet, strictly increasing.
    Raises: ConfigurationError: no such order; JournalError.
    """
    manifest, recorded = open_run(directory)
    commands = recorded.commands
    mine = np.isin(commands["kind"], _PLACED) & (commands["account"] == account) & (commands["order_id"] == order_id)
    if not mine.any():
        raise ConfigurationError(
            f"{directory}: account {account} placed no order {order_id}; {_orders_of(commands, account)}"
        )
    at = int(np.flatnonzero(mine)[0])
    order = commands[at]
    events = replay(*recorded).events
    strategies = strategies_of(manifest)
    strategy = strategies[account] if 0 <= account < len(strategies) else None
    choice = Choice(*(int(order[name]) for name in ("side", "order_type", "price_ticks", "quantity_lots")))
    explained = explanations_of(commands[: at + 1])
    explained = explained.filter(explained["sequence"] == int(order["sequence"]))
    found = redecided(explained, strategies)
    opened = events[events["kind"] == EventKind.SESSION_OPENED]
    zero_ns = int(opened["time_ns"][0]) if len(opened) else int(commands["received_ns"][0])
    answer: dict[str, Any] = {
        "account": account,
        "order_id": order_id,
        "participants": _group_of(manifest, account),
        "strategy": strategy,
        "sequence": int(order["sequence"]),
        "instrument": int(order["instrument"]),
        "action": in_words(choice),
        "cause": _cause(events, commands, int(order["cause_sequence"]), account),
        "times": _times(directory, order, zero_ns),
        "rule": rule_name(int(order["rule"])),
        "inputs": None,
        "because": None,
        "redecided": None,
        "same": None,
    }
    if found:
        (one,) = found
        answer["because"] = told(one.strategy, one.rule, one.words, choice) if strategy else None
        answer["redecided"] = in_words(one.again)
        answer["same"] = one.same
        if one.decision is not None and not any(one.words[len(one.decision.inputs) :]):
            named = one.decision.named(one.words)
            answer["inputs"] = {
                each.name: {"value": named[each.name], "source": each.source.value} for each in one.decision.inputs
            }
    return answer | {"life": _life(events, account, order_id, zero_ns)}


def _orders_of(commands: Array, account: int) -> str:
    placed = commands[np.isin(commands["kind"], _PLACED) & (commands["account"] == account)]["order_id"]
    return f"its orders are {placed.min()} to {placed.max()}" if len(placed) else "it placed none"


def _group_of(manifest: dict[str, Any], account: int) -> str | None:
    return next((name for name, (first, last) in manifest["accounts"].items() if first <= account < last), None)


def _times(directory: Path, order: np.void, zero_ns: int) -> dict[str, dict[str, float | None]]:
    """When it heard, sent, was received and matched."""
    path, at = directory / results.JOURNAL / TIMINGS_FILE, int(order["sequence"]) - 1
    timings: Array | None = np.load(path) if path.is_file() else None
    matched_ns = int(timings["matched_ns"][at]) if timings is not None and at < len(timings) else None
    times = {"heard": order["heard_ns"], "sent": order["sent_ns"], "received": order["received_ns"]}
    known = {name: int(time_ns) for name, time_ns in times.items()} | {"matched": matched_ns}
    return {
        name: {"ns": time_ns, "ms": None if time_ns is None else (time_ns - zero_ns) / MS}
        for name, time_ns in known.items()
    }


def _cause(events: Array, commands: Array, sequence: int, account: int) -> dict[str, Any]:
    """What the account had heard last: the public event of that command, and its report of it."""
    if not 0 < sequence <= len(commands):
        return {"sequence": sequence, "words": "it had heard nothing"}
    caused = events[events["sequence"] == sequence]
    own = caused[(caused["account"] == account) | (caused["maker_account"] == account)]
    public = caused[np.isin(caused["kind"], [int(kind) for kind in _PUBLIC_WORDS])]
    told_of = [_PUBLIC_WORDS[EventKind(int(event["kind"]))](event) for event in public[-1:]]
    for event in own[-1:]:
        number = event["order_id"] if event["account"] == account else event["maker_order_id"]
        told_of.append(f"{_name(event)} of its own{f' order {number}' if number else ''}")
    words = ", and ".join(told_of) or f"market data, as of command {sequence}"
    return {"sequence": sequence, "words": words}


_PUBLIC_WORDS: dict[EventKind, Any] = {
    EventKind.SIGNAL_PUBLISHED: lambda event: f"news of {event['value']:+d} bps about instrument {event['instrument']}",
    EventKind.SESSION_OPENED: lambda event: "the session opened",
    EventKind.SESSION_CLOSED: lambda event: "the session closed",
    EventKind.INSTRUMENT_HALTED: lambda event: f"a halt, {Trigger(int(event['reason'])).name}",
    EventKind.PHASE_CHANGED: lambda event: f"the phase is {Phase(int(event['value'])).name}",
    EventKind.ORACLE_UPDATED: lambda event: (
        f"the oracle says {event['price_ticks']} of instrument {event['instrument']}"
    ),
}


def _name(event: np.void) -> str:
    return EventKind(int(event["kind"])).name


def _life(events: Array, account: int, order_id: int, zero_ns: int) -> list[dict[str, Any]]:
    """Every event of the order, in the order in which they happened."""
    taking = (
        (events["account"] == account) & (events["order_id"] == order_id) & (events["kind"] < EventKind.CASH_DEPOSITED)
    )
    filled = events["kind"] == EventKind.ORDER_FILLED
    making = filled & (events["maker_account"] == account) & (events["maker_order_id"] == order_id)
    found = []
    for at in np.flatnonzero(taking | making):
        event, is_maker = events[at], bool(making[at])
        leaves = int(event["maker_leaves_lots" if is_maker else "leaves_lots"])
        reason = Reason(int(event["reason"])).name if event["reason"] else None
        found.append(
            {
                "number": int(at) + 1,
                "sequence": int(event["sequence"]),
                "ms": (int(event["time_ns"]) - zero_ns) / MS,
                "event": _name(event),
                "price_ticks": int(event["price_ticks"]),
                "quantity_lots": int(event["quantity_lots"]),
                "leaves_lots": leaves,
                "counterparty": int(event["account" if is_maker else "maker_account"]) if filled[at] else None,
                "as": None if not filled[at] else "maker" if is_maker else "taker",
                "reason": reason,
            }
        )
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The answer as text."""
    times = " → ".join(f"{name} {time['ms']:.3f} ms" for name, time in found["times"].items() if time["ms"] is not None)
    text = [
        f"order {found['order_id']} of account {found['account']}, command {found['sequence']}",
        f"who      {found['participants']}, {found['strategy']}",
        f"heard    {found['cause']['words']} (command {found['cause']['sequence']})",
        f"times    {times} after the opening",
        f"rule     {found['rule']}",
    ]
    if found["because"] is None:
        text.append(f"why      it {found['action']} and explains nothing")
    else:
        text.append(f"why      it {found['because']}")
        for name, each in (found["inputs"] or {}).items():
            text.append(f"  {name} = {each['value']:.10g} ({each['source']})")
        text.append(f"checked  re-deciding gives {'the same' if found['same'] else 'another: ' + found['redecided']}")
    for event in found["life"]:
        what = f"{event['event']} {event['quantity_lots']} at {event['price_ticks']}, {event['leaves_lots']} left"
        against = f", {event['as']} against account {event['counterparty']}" if event["as"] else ""
        reason = f", {event['reason']}" if event["reason"] else ""
        text.append(
            f"  event {event['number']}, command {event['sequence']}, {event['ms']:.3f} ms: {what}{against}{reason}"
        )
    return text
