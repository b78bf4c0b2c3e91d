"""The words of a post-mortem, the same in the terminal and on the page. Takes postmortem.json's object.

Money in currency, times in ms since the first cause.
"""

from collections.abc import Mapping
from typing import Any

from aar_swarm.report import formats

Found = Mapping[str, Any]
_MOST_RULES = 3
_MOVERS = {
    "taking": "by orders that took",
    "liquidation": "by the liquidation engine",
    "quotes": "by quotes withdrawn and renewed",
    "other": "by auctions and the rest",
}


def headline(found: Found) -> str:
    if not found["fell"]:
        return (
            "Nothing fell: no fall of the price was 100 bps or more and twice what it did before the news. "
            "There is no chain to tell."
        )
    fall, cause = found["fall"], found["first_cause"]
    took_ms = fall["trough_ms"] - max(0.0, fall["peak_ms"])
    return (
        f"The price fell {formats.bps(fall['fall_bps'])}, from {fall['peak_ticks']:,} to {fall['trough_ticks']:,} "
        f"ticks, within {formats.milliseconds(took_ms)}. First cause: {cause['what']}."
    )


def cause(found: Found) -> list[str]:
    """What is said of the first cause and of those who answered it at once."""
    first = found["first_cause"]
    wave = first["first_wave"]
    said = [
        f"{first['what'].capitalize()}: command {first['sequence']:,}, "
        f"{formats.milliseconds(first['since_open_ms'])} after the opening. "
        f"{formats.share(first['share_of_first_half'])} of what lowered the mid in the first half of the fall goes "
        "back to it."
    ]
    if wave["commands"]:
        who = ", ".join(f"{name} {count:,}" for name, count in wave["by_participants"].items())
        said.append(
            f"First wave: {wave['commands']:,} commands of {wave['accounts']:,} accounts that had heard nothing since "
            f"({who}); {wave['sell_lots']:,} lots to sell, {wave['buy_lots']:,} to buy; after "
            f"{formats.span(wave['first_ms'], wave['last_ms'])}."
        )
    return said


def step_title(step: Found) -> str:
    return (
        f"{step['step']}. {step['name'].capitalize()} · {formats.span(step['from_ms'], step['to_ms'])} · mid "
        f"{step['from_ticks']:,.1f} → {step['to_ticks']:,.1f}"
    )


def step_lines(step: Found, subject: str) -> list[str]:
    """What happened in one step, a sentence each."""
    said = []
    decided = step["decisions"]
    if decided["commands"]:
        rules = list(decided["by_rule"].items())[:_MOST_RULES]
        named = ", ".join(f"{rule} {count:,}" for rule, count in rules)
        said.append(
            f"{decided['commands']:,} decisions of {decided['accounts']:,} accounts ({named}), "
            f"{decided['of_the_first_cause']:,} of them back to the first cause, median "
            f"{links(decided['depth_median'])} away."
        )
    movers = dict(step["moved_by_ticks"])
    movers["quotes"] = movers.pop("withdrawing") + movers.pop("quoting")  # who renews a quote withdraws it first
    moved = {name: ticks for name, ticks in movers.items() if ticks}
    if moved:
        parts = ", ".join(f"{signed(ticks)} {_MOVERS[name]}" for name, ticks in moved.items())
        said.append(f"The mid moved {signed(step['to_ticks'] - step['from_ticks'])} ticks: {parts}.")
    forced = [
        f"{formats.count(step[key])} {name}"
        for key, name in (
            ("margin_calls", "margin calls"),
            ("liquidations", "liquidations of margin accounts"),
            ("liquidated_lots", "lots sold for them"),
            ("taken_over_or_deleveraged", "positions taken over or deleveraged"),
            ("loan_liquidations", "loans liquidated"),
        )
        if step[key]
    ]
    if forced:
        said.append(", ".join(forced).capitalize() + ".")
    if step["bad_debt"]:
        said.append(f"Bad debt: {formats.money(step['bad_debt'])}.")
    others = [(name, lost) for name, lost in step["loss_by_participants"].items() if name != subject and lost > 0]
    worst = f"; of the others {others[0][0]} lost most, {formats.money(others[0][1])}" if others else ""
    said.append(f"The {subject} {_lost(step['loss_subject'])} in it{worst}.")
    return said


def _lost(amount: float) -> str:
    return f"lost {formats.money(amount)}" if amount >= 0 else f"gained {formats.money(-amount)}"


def signed(ticks: float) -> str:
    return f"{'−' if ticks < 0 else '+'}{abs(ticks):,.1f}"


def order_line(order: Found) -> str:
    """One of the orders that moved the price most."""
    who = order["participants"]
    if order["account"] is not None:
        who += f" (account {order['account']}, order {order['order_id']})"
    rule = "" if order["rule"] is None else f", {order['rule']}"
    return (
        f"{who}{rule}: {order['lots']:,} lots walked {order['walked_ticks']:,} ticks ({order['best_bid_ticks']:,} → "
        f"{order['worst_fill_ticks']:,}) and left the best bid {order['bid_lowered_ticks']:,} lower; command "
        f"{order['sequence']:,} at {formats.milliseconds(order['ms'])}, {links(order['depth'])} away{_because(order)}"
    )


def links(count: float) -> str:
    return f"{count:g} link" if count == 1 else f"{count:g} links"


def _because(link: Found) -> str:
    return "" if link["cause_sequence"] is None else f", because of {link['cause_sequence']:,}"


_LINKS = {
    "ROOT": "root",
    "HEARD": "had heard of it last",
    "PLAN": "goes on with its plan",
    "MARK": "the mark that it made",
    "CONTINUED": "goes on",
    "PHASE": "the phase that it began",
    "EVIDENCE": "what the supervisor saw",
    "ARMED": "due after it",
}


def link_line(link: Found) -> str:
    """One link of a path."""
    who = link["participants"] or "the venue"
    if link["account"] is not None:
        who += f" {link['account']}"
    what = link["rule"] if link["rule"] not in (None, "NONE") else link["command"].replace("_", " ").lower()
    lots = f" {link['lots']:,} lots" if link["lots"] else ""
    return (
        f"{link['sequence']:,} at {formats.milliseconds(link['ms'])}: {who}, {what}{lots}; mid "
        f"{link['mid_before_ticks']:,.1f} → {link['mid_after_ticks']:,.1f} [{_LINKS[link['link']]}]"
    )


PATHS = {
    "trough": "From its root to the trade at the trough",
    "largest_move": "From its root to the command that lowered the mid most",
    "last_loss": "From its root to the last forced loss",
}


def shortened(links: list[Any], most: int = 10) -> list[Any]:
    """The first and the last of a long path, and between them None."""
    if len(links) <= most:
        return links
    return [*links[: most // 2], None, *links[-(most // 2) :]]


def supervisor(found: Found) -> str:
    told = found["supervisor"]
    before = told["alerts_before"]
    early = f" Before the first cause it had alarmed {before:,} times." if before else ""
    first = told["first_alert"]
    if first is None:
        return f"A supervisor with these thresholds would not have alarmed from the first cause on.{early}"
    return (
        f"A supervisor would have alarmed {formats.milliseconds(first['ms'])} after the first cause, of "
        f"{first['indicator']} ({first['observed']:,} against {first['threshold']:,} bps, command "
        f"{first['sequence']:,}).{early}"
    )


DEFENCE_HEADS = (
    "Defence",
    "Stopped",
    "Drawdown",
    "Loss of the {}",
    "Saved",
    "Bad debt",
    "Liquidated",
    "Trades prevented",
)


def defence_rows(found: Found) -> list[list[str]]:
    """The run itself, then each defence, in the order of DEFENCE_HEADS."""
    base = found["without"]
    rows = [_defence_row("as it was", base, None)]
    return rows + [_defence_row(row["defence"], row, row["saved"]) for row in found["defences"]]


def _defence_row(name: str, got: Found, saved: Found | None) -> list[str]:
    drawdown = formats.DASH if got["drawdown_bps"] is None else f"{got['drawdown_bps']:,.0f} bps"
    return [
        name,
        formats.milliseconds(got["stopped_ms"]),
        drawdown,
        formats.money(got["loss_subject"]),
        formats.DASH if saved is None else formats.money(saved["loss_subject"]),
        formats.money(got["bad_debt"]),
        formats.count(got["liquidations"]),
        formats.DASH if saved is None else formats.count(saved["trades"]),
    ]


DECISION_HEADS = (
    "Participants", "Rule", "Goes back to", "Commands", "First, ms", "Last, ms", "To the trough", "Lots taken",
    "Mid moved, ticks",
)  # fmt: skip


def decision_row(row: Found) -> list[str]:
    return [
        row["participants"],
        row["rule"],
        row["root"],
        formats.count(row["commands"]),
        f"{row['first_ms']:,.1f}",
        f"{row['last_ms']:,.1f}",
        formats.count(row["commands_to_trough"]),
        formats.count(row["taken_lots_to_trough"]),
        signed(row["moved_ticks_to_trough"]),
    ]


STOP_HEADS = ("Stopped at", "After", "Mid", "Fall to come", "Loss of the {} to come", "Liquidations", "Bad debt")


def stop_row(stop: Found) -> list[str]:
    return [
        stop["at"],
        formats.milliseconds(stop["ms"]),
        f"{stop['mid_ticks']:,.1f}",
        f"{stop['drawdown_bps']:,.0f} bps",
        formats.money(stop["loss_subject"]),
        formats.count(stop["liquidations"]),
        formats.money(stop["bad_debt"]),
    ]
