"""Numbers as people read them: thousands separators, units, and a dash where a figure does not apply.

Owns the look of a number, the same on the page and in the terminal. Must not decide which numbers are shown.
A null (None) means "does not apply" and is shown as a dash, never as 0; a float that is not a number shows as it is.
"""

from collections.abc import Iterable, Sequence
from typing import Any

DASH = "–"


def text(value: Any) -> str:
    """A name, a hash, a list of names."""
    if value is None:
        return DASH
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or DASH
    return str(value)


def yes_no(value: Any) -> str:
    return DASH if value is None else "yes" if value else "no"


def count(value: Any) -> str:
    """12345 -> 12,345. Text, which some figures may be, passes through."""
    if value is None or isinstance(value, str | list | tuple):
        return text(value)
    return _grouped(value, 0)


def decimal(value: float, decimals: int) -> str:
    """1234.5, 1 -> 1,234.5."""
    return _grouped(value, decimals)


def share(value: Any) -> str:
    return DASH if value is None else f"{_grouped(value * 100, 1)} %"


def any_figure(value: Any) -> str:
    """A figure of unknown kind: four significant digits of a fraction, separators in a count, text as it is."""
    if isinstance(value, bool):
        return yes_no(value)
    if not isinstance(value, float):
        return count(value)
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return _grouped(value, max(0, 4 - whole))


def identifier(value: Any) -> str:
    """A number that names something (a seed): no separators."""
    return text(value)


def money(value: Any, decimals: int | None = None) -> str:
    """Currency units; two decimals where they matter, unless told how many."""
    if value is None:
        return DASH
    return _grouped(value, money_decimals([value]) if decimals is None else decimals)


def money_decimals(values: Iterable[Any]) -> int:
    """One number of decimals for a column of money: none once there are thousands in it."""
    return 0 if any(value is not None and abs(value) >= 1000 for value in values) else 2


def price(value: Any, tick_size: float = 0.01) -> str:
    """A price in currency, with as many decimals as the tick has."""
    return DASH if value is None else _grouped(value, tick_decimals(tick_size))


def ratio(value: Any) -> str:
    return DASH if value is None else f"{_grouped(value, 2)} ×"


def bps(value: Any) -> str:
    """Basis points, and the same in per cent."""
    return DASH if value is None else f"{_grouped(value, 0)} bps ({_grouped(value / 100, 2)} %)"


def milliseconds(value: Any) -> str:
    return DASH if value is None else f"{_grouped(value, 1)} ms"


def duration(value_ns: Any) -> str:
    """Nanoseconds in the unit that reads best, three significant digits or so."""
    if value_ns is None:
        return DASH
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(value_ns) >= size:
            scaled = value_ns / size
            return f"{_grouped(scaled, 0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2)} {unit}"
    return f"{_grouped(value_ns, 0)} ns"


def span(first_ms: Any, last_ms: Any) -> str:
    """From and to."""
    if first_ms is None or last_ms is None:
        return DASH
    return f"{_grouped(first_ms, 1)} to {milliseconds(last_ms)}"


def durations(*values_ns: Any) -> str:
    """Several quantiles of one latency in one cell."""
    return joined([duration(value) for value in values_ns])


def change(*values_ns: Any) -> str:
    """The same quantiles before and after."""
    half = len(values_ns) // 2
    return f"{durations(*values_ns[:half])} → {durations(*values_ns[half:])}"


def joined(parts: Sequence[str]) -> str:
    return DASH if all(part == DASH for part in parts) else " / ".join(parts)


def tick_decimals(tick_size: float) -> int:
    """0.01 -> 2, 0.25 -> 2, 5.0 -> 0."""
    decimals = 0
    while decimals < 8 and abs(round(tick_size * 10**decimals) - tick_size * 10**decimals) > 1e-9 * 10**decimals:
        decimals += 1
    return decimals


def _grouped(value: float, decimals: int) -> str:
    shown = f"{value:,.{decimals}f}"
    if shown.startswith("-"):
        shown = shown[1:] if not shown.strip("-0.,") else "−" + shown[1:]
    return shown
