"""Admission: who may log on with which model, and how much of the orders that take may come from one vendor's models.

Enforced diversity by refusal, not by request. Rules in docs/admission.md. The FSB's indicators of providers (2024,
2025: concentration, substitutability) are what the caps bound; whether a declared name is the truth is not seen here:
models that act alike under different names are found from what they did (aar_swarm/analysis/diversity.py).
"""

from exchange import book
from exchange.jit import helper, routine
from exchange.state import FLOW_ENTRIES
from exchange.types import MAX_VENDORS, OrderType, Phase, Reason, Side

MAX_CAPITAL = 1 << 42
"""An account counts for at most so much, and so does an order: sums stay within int64."""
_MAX_NUMBER = (1 << 31) - 1
_LAST = FLOW_ENTRIES - 1  # FLOW_ENTRIES is a power of two
_OK = int(Reason.NONE)
_MALFORMED, _UNDECLARED, _NOT_VALIDATED = int(Reason.MALFORMED), int(Reason.UNDECLARED), int(Reason.NOT_VALIDATED)
_AGENTS_CAP, _CAPITAL_CAP = int(Reason.VENDOR_AGENTS_CAP), int(Reason.VENDOR_CAPITAL_CAP)
_FLOW_CAP, _DECLARED_OTHERWISE = int(Reason.VENDOR_FLOW_CAP), int(Reason.DECLARED_OTHERWISE)
_CONTINUOUS = int(Phase.CONTINUOUS)
_MARKET, _FOK = int(OrderType.MARKET), int(OrderType.FOK)
_BUY = int(Side.BUY)
_BPS = 10_000


@helper
def _share(total, bps):
    """bps of a total, rounded down, without a product beyond int64."""
    return total // _BPS * bps + total % _BPS * bps // _BPS


@routine
def _capital(state, account):
    """What an account is worth at last prices (before any: at the index), 0 … MAX_CAPITAL minor units."""
    total = state.accounts[account]["cash"]
    for number in range(state.instruments.shape[0]):
        row = state.instruments[number]
        price = row["last_ticks"]
        if price == 0:
            price = row["index_ticks"]
        lot = max(price * row["multiplier"], 1)
        lots = state.positions[account][number]["quantity_lots"]
        if abs(lots) > MAX_CAPITAL // lot:  # its product could be beyond int64
            worth = MAX_CAPITAL if lots > 0 else -MAX_CAPITAL
        else:
            worth = lots * price * row["multiplier"]
        total = min(max(total + worth, -MAX_CAPITAL), MAX_CAPITAL)
    return max(total, 0)


@routine
def _is_validated(state, vendor, model, version):
    if state.counters[0]["gate"] == 0 or vendor == 0:
        return True
    for number in range(state.admitted.shape[0]):
        row = state.admitted[number]
        if row["vendor"] == vendor and row["model"] == model and row["model_version"] == version:
            return True
    return False


@routine
def log_on_reason(state, account, vendor, model, version):
    """Why a participant with such a model may not log on, or _OK. It looks at every account where a cap is set."""
    counters = state.counters[0]
    if vendor < 0 or vendor >= MAX_VENDORS or model < 0 or model > _MAX_NUMBER or version < 0 or version > _MAX_NUMBER:
        return _MALFORMED
    row = state.accounts[account]
    other = vendor != row["vendor"] or model != row["model"] or version != row["model_version"]
    if counters["admission"] != 0 and row["logged_on"] != 0 and other:
        return _DECLARED_OTHERWISE
    if vendor == 0:
        return _UNDECLARED if counters["declaration_required"] != 0 else _OK
    if not _is_validated(state, vendor, model, version):
        return _NOT_VALIDATED
    agents_bps = counters["vendor_agents_bps"]
    capital_bps = counters["vendor_capital_bps"]
    if agents_bps + capital_bps == 0:
        return _OK
    agents = 0
    capital = 0
    total = 0
    for number in range(counters["participants"]):
        each = state.accounts[number]
        there = each["logged_on"] != 0 or each["open_orders"] > 0
        counts = number == account or (there and each["vendor"] == vendor)
        if counts:
            agents += 1
        if capital_bps > 0:
            worth = _capital(state, number)
            total += worth
            if counts:
                capital += worth
    if agents_bps > 0 and agents * _BPS > agents_bps * counters["participants"]:
        return _AGENTS_CAP
    if capital_bps > 0 and capital > _share(total, capital_bps):
        return _CAPITAL_CAP
    return _OK


@routine
def _flow_reason(state, account, value, now_ns):
    """Whether the vendor's flow has room for an order of this value; if so, enter it."""
    counters = state.counters[0]
    before_ns = now_ns - counters["flow_window_ns"]
    while counters["flow_count"] > 0:
        oldest = state.flows[counters["flow_head"] & _LAST]
        if oldest["at_ns"] > before_ns and counters["flow_count"] < FLOW_ENTRIES:
            break
        state.vendors[oldest["vendor"]]["flow"] -= oldest["value"]
        counters["flow"] -= oldest["value"]
        counters["flow_head"] += 1
        counters["flow_count"] -= 1
    vendor = state.accounts[account]["vendor"]
    flow = state.vendors[vendor]["flow"] + value
    everyone = counters["flow"] + value
    if vendor != 0 and flow > counters["flow_floor"] and flow > _share(everyone, counters["vendor_flow_bps"]):
        return _FLOW_CAP
    newest = state.flows[(counters["flow_head"] + counters["flow_count"]) & _LAST]
    newest["at_ns"] = now_ns
    newest["value"] = value
    newest["vendor"] = vendor
    counters["flow_count"] += 1
    state.vendors[vendor]["flow"] = flow
    counters["flow"] = everyone
    return _OK


@routine
def _takes(state, instrument, side, order_type, limit, quantity):
    """What an order could take at once, level by level up to its limit, 0 … MAX_CAPITAL minor units."""
    row = state.instruments[instrument]
    if order_type == _MARKET:
        limit = row["price_levels"] - 1 if side == _BUY else 1
    opposite = 2 * instrument + 1 - side
    price = book.best(state, opposite)
    value = 0
    left = quantity
    while left > 0 and book.is_price(state, opposite, price) and not book.beyond(price, limit, side):
        lots = min(left, state.levels[opposite][price]["quantity_lots"])
        value += lots * price
        left -= lots
        price = book.next_price(state, opposite, price)
    if order_type == _FOK and left > 0:
        return 0
    return min(value * row["multiplier"], MAX_CAPITAL)


@helper
def flow_reason(state, account, instrument, side, order_type, price, quantity, now_ns):
    """Why an order that would take may not come from this account's vendor, or _OK; the last check of an order."""
    reason = _OK
    if state.counters[0]["vendor_flow_bps"] > 0 and state.instruments[instrument]["phase"] == _CONTINUOUS:
        value = _takes(state, instrument, side, order_type, price, quantity)
        if value > 0:
            reason = _flow_reason(state, account, value, now_ns)
    return reason
