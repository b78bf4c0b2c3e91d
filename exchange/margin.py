"""Margin accounts and the liquidation engine: what money that can run out does. Rules in docs/money.md.

Owns equity, margin requirements, bankruptcy prices, the steps of a liquidation, the insurance fund, deleveraging and
bad debt. Trades only through the book, or by transfer between accounts; nothing here makes cash or lots.
The model is that of perpetual-futures venues: the liquidation engine takes over at the maintenance margin, sells down
to the bankruptcy price, then the insurance fund takes what is left, then profitable counterparties are deleveraged by
rank, and what nobody bears is booked as bad debt.
"""

import numpy as np

from exchange import accounts, book, breaker, market
from exchange.jit import helper, routine
from exchange.types import (
    MAX_CASH,
    NO_BID,
    NO_SLOT,
    NOBODY,
    EventKind,
    MarginState,
    MarkRule,
    Phase,
    Reason,
    Side,
    SystemAccount,
)

MAX_MARGIN_LOTS = 1 << 32
MAX_PPM = 1 << 30
MOST_DELEVERAGED = 8
"""Counterparties that one step of a liquidation takes, an instrument."""

_BPS = 10_000
_PPM = 1_000_000
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_LAST, _MID = int(MarkRule.LAST), int(MarkRule.MID)
_INDEX = int(MarkRule.INDEX)
_NORMAL, _CALLED = int(MarginState.NORMAL), int(MarginState.CALLED)
_LIQUIDATING = int(MarginState.LIQUIDATING)
_FUND, _DEFICIT = int(SystemAccount.INSURANCE_FUND), int(SystemAccount.DEFICIT)
_CONTINUOUS = int(Phase.CONTINUOUS)
_MARGIN_CALLED, _LIQUIDATION_STARTED = int(EventKind.MARGIN_CALLED), int(EventKind.LIQUIDATION_STARTED)
_LIQUIDATION_ENDED, _TAKEN_OVER = int(EventKind.LIQUIDATION_ENDED), int(EventKind.POSITION_TAKEN_OVER)
_DELEVERAGED, _BAD_DEBT_BOOKED = int(EventKind.DELEVERAGED), int(EventKind.BAD_DEBT_BOOKED)
_FEE_CHARGED = int(EventKind.FEE_CHARGED)
_OK, _IN_LIQUIDATION = int(Reason.NONE), int(Reason.IN_LIQUIDATION)
_INSUFFICIENT_MARGIN, _POSITION_LIMIT = int(Reason.INSUFFICIENT_MARGIN), int(Reason.POSITION_LIMIT)
_INSUFFICIENT_CASH, _AMOUNT_OUT_OF_RANGE = int(Reason.INSUFFICIENT_CASH), int(Reason.AMOUNT_OUT_OF_RANGE)
_BY_LIQUIDATION, _FUND_SALE = int(Reason.LIQUIDATION), int(Reason.FUND_SALE)
_LIQUIDATED = int(Reason.LIQUIDATED)
_MAX_CASH = int(MAX_CASH)


@helper
def share(amount, bps):
    """amount × bps / 10,000, rounded down, within int64 up to 2^60; amount ≥ 0."""
    return amount // _BPS * bps + amount % _BPS * bps // _BPS


@routine
def ppm(numerator, denominator):
    """numerator / denominator in millionths, rounded down, at most MAX_PPM; numerator ≥ 0. Halved together as long as
    the product would not fit."""
    if denominator <= 0:
        return MAX_PPM
    while numerator >= 1 << 42 or denominator >= 1 << 42:
        numerator //= 2
        denominator = max(denominator // 2, 1)
    return min(numerator * _PPM // denominator, MAX_PPM)


@routine
def book_price(state, instrument):
    """The mid, rounded down, if both sides are there; else the last price; else the index."""
    top = state.instruments[instrument]
    bid = book.best(state, 2 * instrument)
    ask = book.best(state, 2 * instrument + 1)
    if bid != NO_BID and ask != top["price_levels"]:
        return (bid + ask) // 2
    if top["last_ticks"] != 0:
        return top["last_ticks"]
    return top["index_ticks"]


@routine
def mark(state, instrument):
    """The price at which margin accounts are valued, ticks; 0: none yet, or no margin accounts."""
    rule = state.counters[0]["mark_rule"]
    top = state.instruments[instrument]
    price = 0
    if rule == _MID:
        price = book_price(state, instrument)
    elif rule == _INDEX or (rule == _LAST and top["last_ticks"] == 0):
        price = top["index_ticks"]
    elif rule == _LAST:
        price = top["last_ticks"]
    return price


@helper
def _marked(state, instrument):
    """What a lot is worth at the mark, minor units."""
    return mark(state, instrument) * state.instruments[instrument]["multiplier"]


@routine
def equity_of(state, account):
    """Cash and what all positions are worth at their marks, minor units."""
    total = state.accounts[account]["cash"]
    for number in range(state.instruments.shape[0]):
        held = state.positions[account][number]["quantity_lots"]
        if held != 0:
            total += _marked(state, number) * held
    return total


@routine
def maintenance_of(state, account):
    """The maintenance margin of an account's positions, minor units."""
    total = 0
    for number in range(state.instruments.shape[0]):
        held = abs(state.positions[account][number]["quantity_lots"])
        if held != 0:
            total += share(_marked(state, number) * held, state.instruments[number]["maintenance_margin_bps"])
    return total


@routine
def initial_of(state, account):
    """The initial margin of an account's positions, minor units."""
    total = 0
    for number in range(state.instruments.shape[0]):
        held = abs(state.positions[account][number]["quantity_lots"])
        if held != 0:
            total += share(_marked(state, number) * held, state.instruments[number]["initial_margin_bps"])
    return total


@routine
def _exposed(state, account, instrument, buying, selling):
    """The initial margin if whatever rests is filled on the worse side, with lots of one more order in `instrument`
    (NOBODY: none)."""
    total = 0
    for number in range(state.instruments.shape[0]):
        position = state.positions[account][number]
        up = position["quantity_lots"] + position["buying_lots"]
        down = position["quantity_lots"] - position["reserved_lots"]
        if number == instrument:
            up += buying
            down -= selling
        lots = max(abs(up), abs(down))
        if lots != 0:
            total += share(_marked(state, number) * lots, state.instruments[number]["initial_margin_bps"])
    return total


@routine
def worst_price(state, instrument, side, quantity):
    """The worst price at which the book could fill `quantity` lots of a MARKET order: that of the last level that it
    needs, or that there is; 0 if the book is empty."""
    number = 2 * instrument + 1 - side
    price = book.best(state, number)
    worst = 0
    left = quantity
    while left > 0 and book.is_price(state, number, price):
        worst = price
        left -= state.levels[number][price]["quantity_lots"]
        price = book.next_price(state, number, price)
    return worst


@routine
def _loss_of_resting(state, account, replaced):
    """What the account would lose against the marks if all its resting orders but `replaced` were filled."""
    loss = 0
    slot = state.accounts[account]["oldest"]
    while slot != NO_SLOT:
        order = state.orders[slot]
        if slot != replaced:
            number = book.instrument_of(order["book"])
            beyond = np.int64(order["price_ticks"]) - mark(state, number)
            if book.side_of(order["book"]) == _SELL:
                beyond = -beyond
            if beyond > 0:
                loss += beyond * order["leaves_lots"] * state.instruments[number]["multiplier"]
        slot = np.int64(order["newer"])
    return loss


@routine
def check_order(state, account, instrument, side, price, quantity, replaced):
    """Why a margin account may not send an order, or _OK.

    Args: price: 0 for a MARKET order that meets nothing; replaced: the slot of its own order that it replaces, or
    NO_SLOT.
    """
    freed = 0
    if replaced != NO_SLOT:
        freed = state.orders[replaced]["leaves_lots"]
    if state.accounts[account]["margin_state"] == _LIQUIDATING:
        return _IN_LIQUIDATION
    position = state.positions[account][instrument]
    held = position["quantity_lots"]
    same_side = position["reserved_lots"] if side == _SELL else position["buying_lots"]
    against = (held > 0 and side == _SELL) or (held < 0 and side == _BUY)
    if against and quantity + same_side - freed <= abs(held):
        return _OK
    if abs(held) + position["buying_lots"] + position["reserved_lots"] - freed + quantity > MAX_MARGIN_LOTS:
        return _POSITION_LIMIT
    price_mark = mark(state, instrument)
    worse = 0
    if price != 0:
        worse = max(price - price_mark, 0) if side == _BUY else max(price_mark - price, 0)
    loss = worse * quantity * state.instruments[instrument]["multiplier"] + _loss_of_resting(state, account, replaced)
    more = quantity - freed
    needed = _exposed(state, account, instrument, more if side == _BUY else 0, more if side == _SELL else 0)
    if equity_of(state, account) - loss < needed:
        return _INSUFFICIENT_MARGIN
    return _OK


@routine
def withdraw(state, account, amount):
    """Take cash out of an account, borrowed cash too if it has margin; returns why not, or _OK."""
    counters = state.counters[0]
    if amount < 1 or amount > _MAX_CASH or counters["cash_deposited"] - amount < -_MAX_CASH:
        return _AMOUNT_OUT_OF_RANGE
    if state.accounts[account]["margin"] == 0:
        if accounts.free_cash(state, account) < amount:
            return _INSUFFICIENT_CASH
    elif equity_of(state, account) - amount < _exposed(state, account, NOBODY, 0, 0):
        return _INSUFFICIENT_MARGIN
    state.accounts[account]["cash"] -= amount
    counters["cash_deposited"] -= amount
    return _OK


@routine
def may_change(state, account):
    """Whether an account may become a margin or a cash account: it holds nothing but cash."""
    row = state.accounts[account]
    free = row["open_orders"] == 0 and row["cash"] >= 0
    free = free and state.loans[account]["collateral_lots"] == 0 and state.loans[account]["debt_lots"] == 0
    for number in range(state.instruments.shape[0]):
        free = free and state.positions[account][number]["quantity_lots"] == 0
    return free


# ── liquidation ──────────────────────────────────────────────────────────────────────────────────────────────────────


@routine
def _bankruptcy_price(state, account, instrument):
    """The price, ticks, at which the account's equity would be 0, other marks as they are: its seller's limit."""
    held = state.positions[account][instrument]["quantity_lots"]
    multiplier = state.instruments[instrument]["multiplier"]
    rest = equity_of(state, account) - _marked(state, instrument) * held
    if held > 0:
        price = -(rest // (held * multiplier))
    else:
        price = rest // (-held * multiplier)
    return min(max(price, 1), state.instruments[instrument]["price_levels"] - 1)


@routine
def _sweep(state, account, instrument, side, limit, wanted, reason, command, events, count):
    """Trade `wanted` lots of an account with the book, up to a limit.

    Returns: (events so far, lots left, value traded, whether the breaker tripped).
    """
    now_ns = command["received_ns"]
    opposite = 2 * instrument + 1 - side
    multiplier = state.instruments[instrument]["multiplier"]
    left = wanted
    traded = 0
    while left > 0:
        price = book.best(state, opposite)
        if book.beyond(price, limit, side):  # as an empty book's best always is
            break
        slot = book.head(state, opposite, price)
        maker = state.orders[slot]
        matched = min(left, maker["leaves_lots"])
        value = price * matched * multiplier if reason == _BY_LIQUIDATION else 0
        sequence = command["sequence"]
        if breaker.trips(state, instrument, side, price, matched, now_ns, sequence) or (
            value > 0 and breaker.liquidation_trips(state, instrument, 0, value, now_ns, sequence)
        ):
            count = market.halt(state, instrument, account, 0, side, price, matched, left, command, events, count)
            return count, left, traded, True
        left -= matched
        traded += price * matched * multiplier
        market.trade(state, slot, account, side, price, matched, command)
        if value > 0:
            breaker.record_liquidation(state, instrument, 0, value, now_ns, sequence)
        event = market.write_fill(
            state, slot, command, instrument, account, 0, side, price, matched, left, events, count
        )
        event["reason"] = reason
        event["value"] = limit
        count += 1
        if maker["leaves_lots"] == 0:
            market.drop(state, slot)
    return count, left, traded, False


@routine
def _charge_fee(state, account, instrument, traded, command, events, count):
    """The liquidation fee, never more than the account still has; returns the number of events so far."""
    fee = min(share(traded, state.counters[0]["liquidation_fee_bps"]), max(equity_of(state, account), 0))
    if fee > 0:
        fund = state.counters[0]["participants"] + _FUND
        state.accounts[account]["cash"] -= fee
        state.accounts[fund]["cash"] += fee
        event = market.write(events, count, command, _FEE_CHARGED)
        event["instrument"] = instrument
        event["account"] = account
        event["maker_account"] = fund
        event["value"] = fee
        count += 1
    return count


@routine
def _transfer(state, account, other, instrument, side, price, quantity, kind, command, events, count):
    """Move a part of a liquidated position to another account at a price; returns the event to complete."""
    if side == _SELL:
        accounts.transfer(state, instrument, other, account, price, quantity)
    else:
        accounts.transfer(state, instrument, account, other, price, quantity)
    event = market.write(events, count, command, kind)
    event["instrument"] = instrument
    event["account"] = account
    event["side"] = side
    event["price_ticks"] = price
    event["quantity_lots"] = quantity
    event["maker_account"] = other
    return count + 1


@routine
def _fund_can_take(state, instrument, side, price, quantity):
    """Whether the insurance fund, with these lots at this price, would hold its own initial margin."""
    fund = state.counters[0]["participants"] + _FUND
    if state.accounts[fund]["cash"] <= 0:
        return False
    sign = 1 if side == _SELL else -1
    position = state.positions[fund][instrument]
    value = price * quantity * state.instruments[instrument]["multiplier"]
    position["quantity_lots"] += sign * quantity
    state.accounts[fund]["cash"] -= sign * value
    able = equity_of(state, fund) >= initial_of(state, fund)
    position["quantity_lots"] -= sign * quantity
    state.accounts[fund]["cash"] += sign * value
    return able


@routine
def rank(state, account, instrument):
    """Where an account stands in the queue for deleveraging, in millionths: profit × effective leverage, or profit /
    leverage if it is a loss (the published rule of BitMEX and Binance)."""
    position = state.positions[account][instrument]
    worth = _marked(state, instrument) * position["quantity_lots"]
    gain = worth - position["entry_value"]
    profit = ppm(abs(gain), abs(position["entry_value"]))
    leverage = ppm(abs(worth), equity_of(state, account))
    if gain > 0:
        return profit * leverage // _PPM
    return -(profit * _PPM // max(leverage, 1))


@routine
def _first_to_deleverage(state, instrument, held):
    """The margin account with the highest rank among those on the other side of `held`, or NOBODY."""
    found = NOBODY
    highest = 0
    for account in range(state.counters[0]["participants"]):
        row = state.accounts[account]
        if row["margin"] != 0 and row["margin_state"] != _LIQUIDATING:
            its = state.positions[account][instrument]["quantity_lots"]
            if its != 0 and (its > 0) != (held > 0):
                its_rank = rank(state, account, instrument)
                if found == NOBODY or its_rank > highest:
                    found = account
                    highest = its_rank
    return found


@routine
def _liquidate_position(state, account, instrument, command, events, count):
    """One slice of one position. Returns: (events so far, whether the breaker tripped)."""
    position = state.positions[account][instrument]
    held = position["quantity_lots"]
    side = _SELL if held > 0 else _BUY
    wanted = min(abs(held), state.counters[0]["liquidation_slice_lots"])
    limit = _bankruptcy_price(state, account, instrument)
    now_ns = command["received_ns"]
    if breaker.liquidation_trips(state, instrument, 1, 0, now_ns, command["sequence"]):
        return market.halt(state, instrument, account, 0, side, limit, 0, wanted, command, events, count), True
    breaker.record_liquidation(state, instrument, 1, 0, now_ns, command["sequence"])
    count, left, traded, tripped = _sweep(
        state, account, instrument, side, limit, wanted, _BY_LIQUIDATION, command, events, count
    )
    count = _charge_fee(state, account, instrument, traded, command, events, count)
    if tripped or left == 0:
        return count, tripped
    if _fund_can_take(state, instrument, side, limit, left):
        fund = state.counters[0]["participants"] + _FUND
        count = _transfer(state, account, fund, instrument, side, limit, left, _TAKEN_OVER, command, events, count)
        return count, False
    for _ in range(MOST_DELEVERAGED):
        other = _first_to_deleverage(state, instrument, held)
        if left == 0 or other == NOBODY:
            break
        quantity = min(left, abs(state.positions[other][instrument]["quantity_lots"]))
        its_rank = rank(state, other, instrument)
        count = _transfer(
            state, account, other, instrument, side, limit, quantity, _DELEVERAGED, command, events, count
        )
        events[count - 1]["value"] = its_rank
        events[count - 1]["reason"] = _BY_LIQUIDATION
        left -= quantity
    if left > 0:
        worst = 1 if side == _SELL else state.instruments[instrument]["price_levels"] - 1
        count, left, traded, tripped = _sweep(
            state, account, instrument, side, worst, left, _BY_LIQUIDATION, command, events, count
        )
    return count, tripped


@routine
def _close_out(state, account, command, events, count):
    """End a liquidation that has nothing left to sell, or has enough again; book what is missing.

    Returns the number of events so far.
    """
    row = state.accounts[account]
    flat = True
    for number in range(state.instruments.shape[0]):
        flat = flat and state.positions[account][number]["quantity_lots"] == 0
    if not flat and equity_of(state, account) < initial_of(state, account):
        return count
    if flat and row["cash"] < 0:
        missing = -row["cash"]
        first = state.counters[0]["participants"]
        paid = min(missing, max(state.accounts[first + _FUND]["cash"], 0))
        state.accounts[first + _FUND]["cash"] -= paid
        state.accounts[first + _DEFICIT]["cash"] -= missing - paid
        row["cash"] = 0
        event = market.write(events, count, command, _BAD_DEBT_BOOKED)
        event["instrument"] = NOBODY
        event["account"] = account
        event["value"] = missing - paid
        event["threshold"] = paid
        count += 1
    row["margin_state"] = _NORMAL
    state.counters[0]["liquidating"] -= 1
    event = market.write(events, count, command, _LIQUIDATION_ENDED)
    event["instrument"] = NOBODY
    event["account"] = account
    event["value"] = row["cash"]
    return count + 1


@routine
def _step(state, account, command, events, count):
    """Go on with an account's liquidation; returns the number of events so far."""
    for number in range(state.instruments.shape[0]):
        if state.positions[account][number]["quantity_lots"] != 0 and (
            state.instruments[number]["phase"] == _CONTINUOUS
        ):
            if equity_of(state, account) >= initial_of(state, account):
                break
            count, tripped = _liquidate_position(state, account, number, command, events, count)
            if tripped:
                break
    return _close_out(state, account, command, events, count)


@routine
def _examine(state, account, command, events, count):
    """One margin account at this revaluation; returns the number of events so far."""
    row = state.accounts[account]
    if row["margin_state"] == _LIQUIDATING:
        return _step(state, account, command, events, count)
    equity = equity_of(state, account)
    maintenance = maintenance_of(state, account)
    level = share(maintenance, state.counters[0]["margin_call_bps"])
    if equity < maintenance:
        row["margin_state"] = _LIQUIDATING
        state.counters[0]["liquidating"] += 1
        event = market.write(events, count, command, _LIQUIDATION_STARTED)
        event["instrument"] = NOBODY
        event["account"] = account
        event["value"] = equity
        event["threshold"] = maintenance
        count = market.cancel_all(state, account, NOBODY, 2, _LIQUIDATED, command, events, count + 1)
        return _step(state, account, command, events, count)
    if equity < level:
        if row["margin_state"] == _NORMAL:
            row["margin_state"] = _CALLED
            event = market.write(events, count, command, _MARGIN_CALLED)
            event["instrument"] = NOBODY
            event["account"] = account
            event["value"] = equity
            event["threshold"] = level
            count += 1
    elif row["margin_state"] == _CALLED and equity >= initial_of(state, account):
        row["margin_state"] = _NORMAL
    return count


@routine
def _refresh_marks(state):
    for number in range(state.instruments.shape[0]):
        state.instruments[number]["marked"] = _marked(state, number)


@helper
def _is_sound(state, account):
    """Whether an account in the state NORMAL has more than its margin call's level: all but a few, so it is inlined and
    uses the marks that _refresh_marks kept."""
    equity = state.accounts[account]["cash"]
    maintenance = 0
    for number in range(state.instruments.shape[0]):
        held = state.positions[account][number]["quantity_lots"]
        value = state.instruments[number]["marked"] * held
        equity += value
        maintenance += share(abs(value), state.instruments[number]["maintenance_margin_bps"])
    return equity >= share(maintenance, state.counters[0]["margin_call_bps"])


@routine
def examine_all(state, command, events, count):
    """Mark every margin account to the market, as many as one revaluation may act on, going round.

    Returns: (events so far, whether some were left for the next revaluation).
    """
    counters = state.counters[0]
    participants = counters["participants"]
    first = counters["revalue_account"]
    acted = 0
    _refresh_marks(state)
    for offset in range(participants):
        account = first + offset
        if account >= participants:
            account -= participants
        row = state.accounts[account]
        if row["margin"] != 0:
            if acted == counters["accounts_per_revaluation"]:
                counters["revalue_account"] = account
                return count, True
            if row["margin_state"] == _NORMAL and _is_sound(state, account):
                continue
            before = count
            count = _examine(state, account, command, events, count)
            if count > before:
                acted += 1
                _refresh_marks(state)
    counters["revalue_account"] = 0
    return count, False


@routine
def sell_inventory(state, command, events, count):
    """Trade a slice of what the insurance fund took over, at any price; returns the number of events so far."""
    fund = state.counters[0]["participants"] + _FUND
    for number in range(state.instruments.shape[0]):
        held = state.positions[fund][number]["quantity_lots"]
        if held != 0 and state.instruments[number]["phase"] == _CONTINUOUS:
            side = _SELL if held > 0 else _BUY
            worst = 1 if side == _SELL else state.instruments[number]["price_levels"] - 1
            wanted = min(abs(held), state.counters[0]["liquidation_slice_lots"])
            count, _, _, _ = _sweep(state, fund, number, side, worst, wanted, _FUND_SALE, command, events, count)
    return count


@routine
def is_pending(state, again):
    """Whether a liquidation, the fund's inventory or (`again`) an account not looked at waits for an open market."""
    fund = state.counters[0]["participants"] + _FUND
    pending = False
    for number in range(state.instruments.shape[0]):
        if state.instruments[number]["phase"] == _CONTINUOUS:
            pending = pending or again or state.counters[0]["liquidating"] > 0
            pending = pending or state.positions[fund][number]["quantity_lots"] != 0
    return pending
