"""Measures of a liquidation cascade around a stablecoin."""

from typing import Any


def scenario_measures(session: Any, rows: Any) -> dict[str, Any]:
    return {}
