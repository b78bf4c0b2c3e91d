"""What `aar races` prints: its figures in words, a line each."""

from collections.abc import Iterator
from typing import Any


def in_words(found: dict[str, Any]) -> Iterator[str]:
    """Figures of aar_swarm.races.measures.of_run."""
    rate, share = _plain(found["per_minute"]), _percent(found["share_of_volume"])
    yield (
        f"{found['races']:,} races in {found['seconds']:,} s of continuous trading, {rate} races a minute; "
        f"{share} of the volume was raced for. {found['messages']:,} messages."
    )
    if found["nothing_displayed"]:
        yield f"Left out: {found['nothing_displayed']:,} at prices where nothing was displayed."
    if found["cancels_without_a_price"]:
        yield f"Left out: {found['cancels_without_a_price']:,} cancels of orders that no fill had ended."
    if found["undecidable"] is None:
        yield "The clocks of the hosts are not known to agree: who sent first cannot be told."
    elif found["undecidable"]:
        yield f"{found['undecidable']:,} are shorter than the clocks are known to agree: undecidable (docs/time.md)."
    sending = found["sending"]
    if sending is not None and found["races"]:
        yield (
            f"Who sent first was first in {sending['first_won']:,} and overtaken in {sending['first_lost']:,}"
            + (f"; in {sending['unknown']:,} the clocks cannot tell." if sending["unknown"] else ".")
        )
    durations, wins = found["duration_us"], found["wins"]
    if found["races"]:
        yield (
            f"From the first success to the first failure: {_plain(durations['p10'])} / {_plain(durations['p50'])} / "
            f"{_plain(durations['p90'])} us (p10 / p50 / p90), {_percent(durations['negative_share'])} below 0."
        )
        yield (
            f"{wins['winners']:,} participants won one; the six who won most have {_percent(wins['top_6_share'])}; "
            f"{_percent(wins['by_cancel'])} were won by a cancel."
        )
        for name, of in wins["by_group"].items():
            yield f"  {name}: first to succeed in {of['won']:,}, first to fail in {of['lost']:,}"
    for after, profit in found["profit"].items():
        if profit["races"]:
            ticks, each, tax = (_plain(profit[key]) for key in ("per_share_ticks", "per_race", "tax_bps"))
            yield (
                f"Marked after {after}: {ticks} ticks a share, {each} ticks x lots a race, tax {tax} bp of the value "
                f"traded ({profit['races']:,} of the races)."
            )
        elif found["races"]:
            yield f"Marked after {after}: no race has a mid then; the session is over, or a side of the book is empty."
    expected = found["poisson"]["clusters_expected"]
    if expected is not None:
        yield f"Of messages at the best prices that came by chance one would expect {_plain(expected)} clusters."
    yield "Sensitivities, races a minute:"
    for name, rate in found["sensitivities"].items():
        yield f"  {name}: {_plain(rate)}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
