"""What a supervisor watches: indicators of one instrument, kept up with every command of a twin of the engine.

Pure functions over the engine's state and events: no clock, no socket, and the engine's state is only read. Definitions
with units in docs/supervision.md. Integers throughout, so that the same commands give the same alerts, for ever.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from exchange import book, margin
from exchange.config import SupervisionConfig
from exchange.engine import apply_commands
from exchange.jit import helper, kernel, routine
from exchange.state import Array, State
from exchange.types import NOBODY, CommandKind, EventKind, Phase, Reason, Side, _record

TAKEN_ENTRIES = 1 << 16
"""Bound of the window of fills. A full one forgets its oldest, so that it reaches less far back than window_ns."""
SAMPLES = 1024
"""The slow average of the depth is sampled so many times within average_ns."""
MAX_ALERTS = 1024
"""Of one call of `watch`."""

_FILLED, _BY_AUCTION = int(EventKind.ORDER_FILLED), int(Reason.AUCTION)
_CONTINUOUS, _BUY, _REVALUE = int(Phase.CONTINUOUS), int(Side.BUY), int(CommandKind.REVALUE)
_BPS = 10_000
_DEPTH_DIVISOR = 100  # depth is counted within 1 % of the mid
_FINE = 1 << 20  # of a lot: what the averages count in
_MOST_SAMPLES = 16 * SAMPLES
_MAX_VALUE = 1 << 40
_MAX_SHARED = 4096


class Indicator(IntEnum):
    IMBALANCE = 1
    """|lots that takers sold − bought| over their sum within the window, bps."""
    BID_DEPTH = 2
    """Lots bid within 1 % of the mid over their slow average, bps. It alarms when it is low."""
    ASK_DEPTH = 3
    PRESSURE = 4
    """Lots to be liquidated if the mark fell by fall_bps, over the lots bid within 1 %, bps."""
    HERDING = 5
    """The LSV statistic (FACTS.md, section 5) of the accounts that took within the window, bps."""
    SIMILARITY = 6
    """Share of these accounts whose net side is the majority's, bps."""


_IMBALANCE, _BID_DEPTH, _ASK_DEPTH = int(Indicator.IMBALANCE), int(Indicator.BID_DEPTH), int(Indicator.ASK_DEPTH)
_PRESSURE, _HERDING, _SIMILARITY = int(Indicator.PRESSURE), int(Indicator.HERDING), int(Indicator.SIMILARITY)

ALERT = _record(
    "sequence",  # of the command with which the indicator reached its threshold: the evidence
    "indicator",
    "instrument",
    "observed",
    "threshold",
    "received_ns",  # of that command
)

RULE = _record(
    "threshold",  # bps; 0: off
    "value",
    "known",
    "raised",  # 1: it has alarmed, and may again only once it was below for a whole window
    "hit_ns",  # when it last was at its threshold or beyond
    "least",
    "most",
    "seen",  # how often it was known
)
"""One row an Indicator, and one for nothing."""

WATCHED = _record(
    "instrument",
    "window_ns",
    "step_ns",  # between two samples of the depths
    "fall_bps",
    "imbalance_lots",
    "herd_accounts",
    "head",  # of the ring of fills
    "count",
    "sold_lots",
    "bought_lots",
    "sellers",
    "buyers",
    "bid_lots",  # within 1 % of the mid
    "ask_lots",
    "bid_average",  # in 1/2^20 of a lot
    "ask_average",
    "samples",
    "sampled_ns",
    "trading",
    "lots_at_risk",
    "scanned_ticks",  # the mark at the last look at the margin accounts
)

TAKEN = _record("time_ns", "account", "lots")
"""One fill of a taker's; lots are negative if it sold."""


class Watch(NamedTuple):
    """A accounts, I instruments."""

    watched: Array  # WATCHED[1]
    rules: Array  # RULE[7]
    taken: Array  # TAKEN[TAKEN_ENTRIES]: a ring
    net: Array  # int64[A]: lots taken within the window, negative if sold
    by_chance: Array  # int64[n]: E|Bin(n, ½)/n − ½| in 1/10,000
    marked: Array  # int64[I]: what a lot is worth at the mark, minor units
    alerts: Array  # ALERT[MAX_ALERTS]


def new_watch(config: SupervisionConfig, state: State) -> Watch:
    watch = Watch(
        watched=np.zeros(1, WATCHED),
        rules=np.zeros(len(Indicator) + 1, RULE),
        taken=np.zeros(TAKEN_ENTRIES, TAKEN),
        net=np.zeros(len(state.accounts), np.int64),
        by_chance=np.zeros(_MAX_SHARED + 1, np.int64),
        marked=np.zeros(len(state.instruments), np.int64),
        alerts=np.zeros(MAX_ALERTS, ALERT),
    )
    row = watch.watched[0]
    row["instrument"] = config.instrument
    row["window_ns"] = config.window_ns
    row["step_ns"] = max(1, config.average_ns // SAMPLES)
    row["fall_bps"] = config.fall_bps
    row["imbalance_lots"] = config.imbalance_lots
    row["herd_accounts"] = config.herd_accounts
    for indicator, threshold in (
        (Indicator.IMBALANCE, config.imbalance_bps),
        (Indicator.BID_DEPTH, config.depth_bps),
        (Indicator.ASK_DEPTH, config.depth_bps),
        (Indicator.PRESSURE, config.pressure_bps),
        (Indicator.HERDING, config.herding_bps),
        (Indicator.SIMILARITY, config.similarity_bps),
    ):
        watch.rules[indicator]["threshold"] = threshold
    watch.rules["least"] = _MAX_VALUE
    share = 0.5
    for count in range(1, len(watch.by_chance)):
        watch.by_chance[count] = round(share * _BPS)
        if count % 2:  # ⌈n/2⌉·C(n, ⌈n/2⌉)/(n·2^n): the same of an even n and the odd one behind it
            share *= count / (count + 1)
    return watch


# ── the window of fills ──────────────────────────────────────────────────────────────────────────────────────────────


@helper
def _add(watch, participants, account, lots, sign):
    """Put a fill into the sums (sign 1), or take it out again (−1)."""
    row = watch.watched[0]
    if lots > 0:
        row["bought_lots"] += sign * lots
    else:
        row["sold_lots"] -= sign * lots
    if account < participants:  # the insurance fund's sales are flow, but nobody's decision
        before = watch.net[account]
        after = before + sign * lots
        watch.net[account] = after
        row["buyers"] += np.int64(after > 0) - np.int64(before > 0)
        row["sellers"] += np.int64(after < 0) - np.int64(before < 0)


@routine
def _forget(watch, participants, until_ns):
    """Drop the fills at until_ns or before."""
    row = watch.watched[0]
    while row["count"] > 0:
        oldest = watch.taken[row["head"]]
        if oldest["time_ns"] > until_ns:
            break
        _add(watch, participants, oldest["account"], oldest["lots"], -1)
        row["head"] = (row["head"] + 1) & (TAKEN_ENTRIES - 1)
        row["count"] -= 1


@routine
def _take(watch, participants, event):
    """Enter a fill of a taker's."""
    row = watch.watched[0]
    if row["count"] == TAKEN_ENTRIES:
        _forget(watch, participants, watch.taken[row["head"]]["time_ns"])
    newest = watch.taken[(row["head"] + row["count"]) & (TAKEN_ENTRIES - 1)]
    newest["time_ns"] = event["time_ns"]
    newest["account"] = event["account"]
    newest["lots"] = event["quantity_lots"] if event["side"] == _BUY else -event["quantity_lots"]
    row["count"] += 1
    _add(watch, participants, newest["account"], newest["lots"], 1)


# ── the book and the margin accounts ─────────────────────────────────────────────────────────────────────────────────


@helper
def _towards(average, value, samples):
    """An average after one more sample: plain while there are few, then exponential."""
    return average + (value * _FINE - average) // min(samples + 1, SAMPLES)


@helper
def _sample(watch, now_ns):
    """Bring the slow averages up to now with the depth that was there until now."""
    row = watch.watched[0]
    steps = (now_ns - row["sampled_ns"]) // row["step_ns"]
    row["sampled_ns"] += steps * row["step_ns"]
    for _ in range(min(steps, _MOST_SAMPLES)):
        row["bid_average"] = _towards(row["bid_average"], row["bid_lots"], row["samples"])
        row["ask_average"] = _towards(row["ask_average"], row["ask_lots"], row["samples"])
        row["samples"] += 1


@routine
def _measure_book(state, watch):
    row = watch.watched[0]
    instrument = row["instrument"]
    price = margin.book_price(state, instrument)
    reach = price // _DEPTH_DIVISOR
    row["bid_lots"] = book.depth_within(state, 2 * instrument, price - reach)
    row["ask_lots"] = book.depth_within(state, 2 * instrument + 1, price + reach)


@routine
def lots_at_risk(state, watch, fall_bps):
    """Lots of the watched instrument, held by margin accounts that would be below their maintenance margin if its mark
    fell by fall_bps and all else stayed as it is; those that are being liquidated are below it already."""
    instrument = watch.watched[0]["instrument"]
    marked = watch.marked
    for number in range(marked.shape[0]):
        marked[number] = margin.mark(state, number) * state.instruments[number]["multiplier"]
    marked[instrument] -= margin.share(marked[instrument], fall_bps)
    total = 0
    for account in range(state.counters[0]["participants"]):
        held = state.positions[account][instrument]["quantity_lots"]
        if state.accounts[account]["margin"] == 0 or held <= 0:
            continue
        equity = state.accounts[account]["cash"]
        needed = 0
        for number in range(marked.shape[0]):
            lots = state.positions[account][number]["quantity_lots"]
            equity += marked[number] * lots
            bps = state.instruments[number]["maintenance_margin_bps"]
            needed += margin.share(marked[number] * abs(lots), bps)
        if equity < needed:
            total += held
    return total


@routine
def _scan(state, watch, kind):
    """Look at the margin accounts when the venue does, and between that whenever the mark has moved noticeably."""
    row = watch.watched[0]
    mark = margin.mark(state, row["instrument"])
    moved = abs(mark - row["scanned_ticks"]) * _BPS * 10
    if kind == _REVALUE or moved >= row["fall_bps"] * row["scanned_ticks"]:
        row["scanned_ticks"] = mark
        row["lots_at_risk"] = lots_at_risk(state, watch, row["fall_bps"])


# ── indicators and alerts ────────────────────────────────────────────────────────────────────────────────────────────


@helper
def _set(watch, indicator, known, value):
    rule = watch.rules[indicator]
    rule["known"] = known
    rule["value"] = value
    if known:
        rule["seen"] += 1
        rule["least"] = min(rule["least"], value)
        rule["most"] = max(rule["most"], value)


@routine
def _evaluate(state, watch):
    """Set the value of every indicator, as of now."""
    row = watch.watched[0]
    trading = row["trading"] != 0
    taken = row["bought_lots"] + row["sold_lots"]
    known = trading and taken > 0 and taken >= row["imbalance_lots"]
    _set(watch, _IMBALANCE, known, abs(row["bought_lots"] - row["sold_lots"]) * _BPS // max(taken, 1))
    settled = trading and row["samples"] >= SAMPLES
    for indicator in (_BID_DEPTH, _ASK_DEPTH):
        average = row["bid_average"] if indicator == _BID_DEPTH else row["ask_average"]
        lots = row["bid_lots"] if indicator == _BID_DEPTH else row["ask_lots"]
        whole = average // _FINE
        _set(watch, indicator, settled and whole > 0, lots * _BPS // max(whole, 1))
    known = settled and state.counters[0]["mark_rule"] != NOBODY
    _set(watch, _PRESSURE, known, min(row["lots_at_risk"] * _BPS // max(row["bid_lots"], 1), _MAX_VALUE))
    accounts = row["buyers"] + row["sellers"]
    known = trading and accounts > 0 and accounts >= row["herd_accounts"]
    apart = abs(row["buyers"] - row["sellers"]) * (_BPS // 2) // max(accounts, 1)
    _set(watch, _HERDING, known, apart - watch.by_chance[min(accounts, watch.by_chance.shape[0] - 1)])
    _set(watch, _SIMILARITY, known, max(row["buyers"], row["sellers"]) * _BPS // max(accounts, 1))


@routine
def _alarm(watch, command, alerts):
    """Write an alert for each indicator that has come to its threshold; returns the number of alerts so far."""
    row = watch.watched[0]
    now_ns = command["received_ns"]
    for indicator in range(1, watch.rules.shape[0]):
        rule = watch.rules[indicator]
        if rule["threshold"] > 0:
            low = indicator == _BID_DEPTH or indicator == _ASK_DEPTH
            beyond = rule["value"] <= rule["threshold"] if low else rule["value"] >= rule["threshold"]
            if rule["known"] != 0 and beyond:
                if rule["raised"] == 0:
                    alert = watch.alerts[alerts]
                    alert["sequence"] = command["sequence"]
                    alert["indicator"] = indicator
                    alert["instrument"] = row["instrument"]
                    alert["observed"] = rule["value"]
                    alert["threshold"] = rule["threshold"]
                    alert["received_ns"] = now_ns
                    alerts += 1
                rule["raised"] = 1
                rule["hit_ns"] = now_ns
            elif now_ns - rule["hit_ns"] > row["window_ns"]:
                rule["raised"] = 0
    return alerts


@routine
def observe(state, watch, command, events, count, alerts):
    """Take in what one command did: the first `count` events, and the state after it. Returns the alerts so far."""
    row = watch.watched[0]
    instrument = row["instrument"]
    participants = state.counters[0]["participants"]
    now_ns = command["received_ns"]
    if row["trading"] != 0:
        _sample(watch, now_ns)
    touched = False
    for at in range(count):
        event = events[at]
        if event["instrument"] == instrument:
            touched = True
            if event["kind"] == _FILLED and event["reason"] != _BY_AUCTION:
                _take(watch, participants, event)
    _forget(watch, participants, now_ns - row["window_ns"])
    trading = np.int64(state.instruments[instrument]["phase"] == _CONTINUOUS)
    if touched:
        _measure_book(state, watch)
        if trading > row["trading"]:  # it opened, or reopened: the book that was there before says nothing of this one
            row["samples"] = 0
            row["sampled_ns"] = now_ns
    row["trading"] = trading
    if trading != 0 and state.counters[0]["mark_rule"] != NOBODY:
        _scan(state, watch, command["kind"])
    _evaluate(state, watch)
    return _alarm(watch, command, alerts)


@kernel
def follow(state, watch, commands, first, events):
    """Apply commands[first:] to the twin and watch, until done or until `watch.alerts` might not hold more.

    Args: commands: COMMAND[n], following on from the last; events: EVENT[m], m ≥ events_bound(state).
    Returns: (number of the first command not applied, number of alerts written).
    """
    at = first
    alerts = 0
    while at < commands.shape[0] and alerts + watch.rules.shape[0] <= watch.alerts.shape[0]:
        _, count = apply_commands(state, commands, at, at + 1, events)
        alerts = observe(state, watch, commands[at], events, count, alerts)
        at += 1
    return at, alerts
