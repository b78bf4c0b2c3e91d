"""The lending pool, its oracles, and the stablecoin's issuer: what participants ask of them. Rules in docs/money.md.

Health factor, close factor, bonus and threshold are Aave v3's; deviation and heartbeat are Chainlink's. Liquidations
are participants' commands: whoever is first in the sequence has it. Everything moves lots and cash between accounts;
nothing here makes any.
"""

from exchange import accounts, margin, market
from exchange.jit import routine
from exchange.types import (
    MAX_QUANTITY_LOTS,
    NEVER,
    NOBODY,
    CommandKind,
    EventKind,
    OracleSource,
    Phase,
    Reason,
    SystemAccount,
)

_DEPOSIT, _WITHDRAW = int(CommandKind.DEPOSIT_COLLATERAL), int(CommandKind.WITHDRAW_COLLATERAL)
_BORROW, _REPAY, _LIQUIDATE = int(CommandKind.BORROW), int(CommandKind.REPAY), int(CommandKind.LIQUIDATE)
_REDEEM, _MINT = int(CommandKind.REDEEM), int(CommandKind.MINT)
_DEPOSITED, _WITHDRAWN = int(EventKind.COLLATERAL_DEPOSITED), int(EventKind.COLLATERAL_WITHDRAWN)
_BORROWED, _REPAID = int(EventKind.BORROWED), int(EventKind.REPAID)
_LOAN_LIQUIDATED, _BAD_DEBT_BOOKED = int(EventKind.LOAN_LIQUIDATED), int(EventKind.BAD_DEBT_BOOKED)
_REDEEMED, _MINTED = int(EventKind.REDEEMED), int(EventKind.MINTED)
_REQUEST_REJECTED, _ORACLE_UPDATED = int(EventKind.REQUEST_REJECTED), int(EventKind.ORACLE_UPDATED)
_OK, _UNKNOWN_ACCOUNT = int(Reason.NONE), int(Reason.UNKNOWN_ACCOUNT)
_NO_SUCH_FACILITY, _IS_CLOSED = int(Reason.NO_SUCH_FACILITY), int(Reason.CLOSED)
_IS_KILLED = int(Reason.IS_KILLED)
_NOT_A_CASH_ACCOUNT, _QUANTITY_OUT_OF_RANGE = int(Reason.NOT_A_CASH_ACCOUNT), int(Reason.QUANTITY_OUT_OF_RANGE)
_INSUFFICIENT_POSITION, _INSUFFICIENT_CASH = int(Reason.INSUFFICIENT_POSITION), int(Reason.INSUFFICIENT_CASH)
_INSUFFICIENT_COLLATERAL, _POOL_EXHAUSTED = int(Reason.INSUFFICIENT_COLLATERAL), int(Reason.POOL_EXHAUSTED)
_NO_DEBT, _UNKNOWN_LOAN, _LOAN_HEALTHY = int(Reason.NO_DEBT), int(Reason.UNKNOWN_LOAN), int(Reason.LOAN_HEALTHY)
_RESERVES_EXHAUSTED, _REDEMPTION_RATE = int(Reason.RESERVES_EXHAUSTED), int(Reason.REDEMPTION_RATE)
_POOL, _ISSUER = int(SystemAccount.LENDING_POOL), int(SystemAccount.ISSUER)
_OTHER_VENUE = int(OracleSource.OTHER_VENUE)
_PRE_OPEN, _CLOSED = int(Phase.PRE_OPEN), int(Phase.CLOSED)
_NEVER = int(NEVER)
_BPS = 10_000
_MAX_LOTS = int(MAX_QUANTITY_LOTS)


# ── oracles ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@routine
def _delayed_price(state, instrument, price, now_ns):
    """Remember the book's price and return the one of oracle_delay_ns ago, or the oldest that is known."""
    top = state.instruments[instrument]
    history = state.history[instrument]
    mask = history.shape[0] - 1
    head = top["history_head"]
    count = top["history_count"]
    if count == 0 or history[(head + count - 1) & mask]["value"] != price:
        if count == history.shape[0]:
            head += 1
            count -= 1
        entry = history[(head + count) & mask]
        entry["until_ns"] = now_ns
        entry["value"] = price
        count += 1
    while count > 1 and history[(head + 1) & mask]["until_ns"] <= now_ns - top["oracle_delay_ns"]:
        head += 1
        count -= 1
    top["history_head"] = head
    top["history_count"] = count
    return history[head & mask]["value"]


@routine
def update_oracles(state, command, events, count):
    """Let every oracle speak that has to; returns the number of events so far."""
    now_ns = command["received_ns"]
    for number in range(state.instruments.shape[0]):
        top = state.instruments[number]
        if top["oracle_source"] == NOBODY:
            continue
        price = margin.book_price(state, number)
        if top["oracle_delay_ns"] > 0:
            price = _delayed_price(state, number, price, now_ns)
        elif top["oracle_source"] == _OTHER_VENUE:
            price = top["index_ticks"]
        said = top["oracle_ticks"]
        heartbeat = top["oracle_heartbeat_ns"]
        moved = price != said and abs(price - said) * _BPS >= top["oracle_deviation_bps"] * said
        late = heartbeat > 0 and now_ns - top["oracle_ns"] >= heartbeat
        if price > 0 and (said == 0 or moved or late):
            top["oracle_ticks"] = price
            top["oracle_ns"] = now_ns
            event = market.write(events, count, command, _ORACLE_UPDATED)
            event["instrument"] = number
            event["account"] = NOBODY
            event["price_ticks"] = price
            event["value"] = said
            count += 1
    return count


@routine
def next_heartbeat(state, soonest_ns):
    """When the first oracle's heartbeat is due, but not before soonest_ns; NEVER: there is none."""
    due = _NEVER
    is_open = False
    for number in range(state.instruments.shape[0]):
        top = state.instruments[number]
        if top["phase"] != _PRE_OPEN and top["phase"] != _CLOSED:
            is_open = True
        if top["oracle_source"] != NOBODY and top["oracle_heartbeat_ns"] > 0:
            due = min(due, max(top["oracle_ns"] + top["oracle_heartbeat_ns"], soonest_ns))
    return due if is_open else _NEVER


# ── the pool ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@routine
def _collateral_price(state):
    top = state.instruments[state.counters[0]["collateral_instrument"]]
    return top["oracle_ticks"] * top["multiplier"]


@routine
def _debt_price(state):
    counters = state.counters[0]
    top = state.instruments[counters["debt_instrument"]]
    ticks = counters["par_ticks"] if counters["debt_at_par"] != 0 else top["oracle_ticks"]
    return ticks * top["multiplier"]


@routine
def _move(state, instrument, giver, taker, quantity):
    state.positions[giver][instrument]["quantity_lots"] -= quantity
    state.positions[taker][instrument]["quantity_lots"] += quantity


@routine
def _covers(state, collateral_lots, debt_lots):
    """Whether so much collateral allows to borrow so much."""
    limit = margin.share(collateral_lots * _collateral_price(state), state.counters[0]["max_ltv_bps"])
    return debt_lots * _debt_price(state) <= limit


@routine
def _write_loan(kind, instrument, quantity, left, command, events, count):
    event = market.write(events, count, command, kind)
    event["instrument"] = instrument
    event["quantity_lots"] = quantity
    event["leaves_lots"] = left
    return count + 1


@routine
def _use_collateral(state, command, events, count):
    """DEPOSIT_COLLATERAL and WITHDRAW_COLLATERAL. Returns: (the reason of a reject, events so far)."""
    account = command["account"]
    quantity = command["quantity_lots"]
    counters = state.counters[0]
    instrument = counters["collateral_instrument"]
    pool = counters["participants"] + _POOL
    loan = state.loans[account]
    if command["kind"] == _DEPOSIT:
        if accounts.free_lots(state, account, instrument) < quantity:
            return _INSUFFICIENT_POSITION, count
        _move(state, instrument, account, pool, quantity)
        loan["collateral_lots"] += quantity
        kind = _DEPOSITED
    else:
        left = loan["collateral_lots"] - quantity
        if left < 0 or (loan["debt_lots"] > 0 and not _covers(state, left, loan["debt_lots"])):
            return _INSUFFICIENT_COLLATERAL, count
        _move(state, instrument, pool, account, quantity)
        loan["collateral_lots"] = left
        kind = _WITHDRAWN
    return _OK, _write_loan(kind, instrument, quantity, loan["collateral_lots"], command, events, count)


@routine
def _use_debt(state, command, events, count):
    """BORROW and REPAY. Returns: (the reason of a reject, events so far)."""
    account = command["account"]
    quantity = command["quantity_lots"]
    counters = state.counters[0]
    instrument = counters["debt_instrument"]
    pool = counters["participants"] + _POOL
    loan = state.loans[account]
    if command["kind"] == _BORROW:
        if state.positions[pool][instrument]["quantity_lots"] < quantity:
            return _POOL_EXHAUSTED, count
        priced = _collateral_price(state) > 0 and _debt_price(state) > 0
        if not priced or not _covers(state, loan["collateral_lots"], loan["debt_lots"] + quantity):
            return _INSUFFICIENT_COLLATERAL, count
        _move(state, instrument, pool, account, quantity)
        loan["debt_lots"] += quantity
        kind = _BORROWED
    else:
        if loan["debt_lots"] == 0:
            return _NO_DEBT, count
        quantity = min(quantity, loan["debt_lots"])
        if accounts.free_lots(state, account, instrument) < quantity:
            return _INSUFFICIENT_POSITION, count
        _move(state, instrument, account, pool, quantity)
        loan["debt_lots"] -= quantity
        kind = _REPAID
    return _OK, _write_loan(kind, instrument, quantity, loan["debt_lots"], command, events, count)


@routine
def _liquidate(state, command, events, count):
    """LIQUIDATE: the first message that finds a loan unhealthy has it. Returns: (reason of a reject, events so far)."""
    account = command["account"]
    target = command["target_order_id"]
    counters = state.counters[0]
    participants = counters["participants"]
    if target < 0 or target >= participants or target == account:
        return _UNKNOWN_LOAN, count
    loan = state.loans[target]
    debt = loan["debt_lots"]
    collateral = loan["collateral_lots"]
    if debt == 0:
        return _UNKNOWN_LOAN, count
    price = _collateral_price(state)
    debt_price = _debt_price(state)
    worth = margin.share(collateral * price, counters["liquidation_threshold_bps"])
    owed = debt * debt_price
    if price == 0 or debt_price == 0 or owed <= worth:
        return _LOAN_HEALTHY, count
    most = debt
    if worth >= margin.share(owed, counters["full_close_health_bps"]):
        most = max(margin.share(debt, counters["close_factor_bps"]), 1)
    repaid = min(command["quantity_lots"], most)
    bonus = counters["bonus_bps"]
    value = repaid * debt_price
    seized = (value + margin.share(value, bonus)) // price
    if seized > collateral:
        seized = collateral
        whole = collateral * price
        part = _BPS + bonus
        value = whole // part * _BPS + whole % part * _BPS // part
        repaid = max(min(repaid, -(-value // debt_price)), 1)
    debt_instrument = counters["debt_instrument"]
    instrument = counters["collateral_instrument"]
    if accounts.free_lots(state, account, debt_instrument) < repaid:
        return _INSUFFICIENT_POSITION, count
    pool = participants + _POOL
    _move(state, debt_instrument, account, pool, repaid)
    _move(state, instrument, pool, account, seized)
    loan["debt_lots"] = debt - repaid
    loan["collateral_lots"] = collateral - seized
    event = market.write(events, count, command, _LOAN_LIQUIDATED)
    event["instrument"] = instrument
    event["quantity_lots"] = repaid
    event["leaves_lots"] = seized
    event["price_ticks"] = price
    event["threshold"] = debt_price
    event["value"] = margin.ppm(worth, owed)
    event["maker_account"] = target
    event["maker_leaves_lots"] = loan["debt_lots"]
    count += 1
    if loan["collateral_lots"] == 0 and loan["debt_lots"] > 0:
        left = loan["debt_lots"]
        counters["written_off_lots"] += left
        loan["debt_lots"] = 0
        event = market.write(events, count, command, _BAD_DEBT_BOOKED)
        event["instrument"] = debt_instrument
        event["account"] = target
        event["quantity_lots"] = left
        event["value"] = left * debt_price
        count += 1
    return _OK, count


# ── the stablecoin ───────────────────────────────────────────────────────────────────────────────────────────────────


@routine
def _exchange_at_par(state, command, events, count):
    """REDEEM and MINT. Returns: (the reason of a reject, events so far)."""
    account = command["account"]
    quantity = command["quantity_lots"]
    counters = state.counters[0]
    instrument = counters["stablecoin"]
    issuer = counters["participants"] + _ISSUER
    par = counters["par_ticks"]
    cost = quantity * par * state.instruments[instrument]["multiplier"]
    if command["kind"] == _REDEEM:
        if accounts.free_lots(state, account, instrument) < quantity:
            return _INSUFFICIENT_POSITION, count
        if state.accounts[issuer]["cash"] < cost:
            return _RESERVES_EXHAUSTED, count
        interval = counters["redemption_interval_ns"]
        if interval > 0:
            now_ns = command["received_ns"]
            due = max(counters["redemption_ns"], now_ns) + quantity * interval
            if due - now_ns > counters["redemption_burst_lots"] * interval:
                return _REDEMPTION_RATE, count
            counters["redemption_ns"] = due
        accounts.transfer(state, instrument, issuer, account, par, quantity)
        kind = _REDEEMED
    else:
        if accounts.free_cash(state, account) < cost:
            return _INSUFFICIENT_CASH, count
        if state.positions[issuer][instrument]["quantity_lots"] < quantity:
            return _POOL_EXHAUSTED, count
        accounts.transfer(state, instrument, account, issuer, par, quantity)
        kind = _MINTED
    event = market.write(events, count, command, kind)
    event["instrument"] = instrument
    event["price_ticks"] = par
    event["quantity_lots"] = quantity
    event["value"] = state.accounts[issuer]["cash"]
    return _OK, count + 1


@routine
def request(state, command, events, count):
    """A participant's command to the pool or the issuer; returns the number of events so far."""
    account = command["account"]
    quantity = command["quantity_lots"]
    kind = command["kind"]
    counters = state.counters[0]
    at_issuer = kind == _REDEEM or kind == _MINT
    reason = _OK
    if account < 0 or account >= counters["participants"]:
        reason = _UNKNOWN_ACCOUNT
    else:
        accounts.charge(state, account, command["received_ns"])
        facility = counters["stablecoin"] if at_issuer else counters["collateral_instrument"]
        if state.accounts[account]["killed"] != 0:
            reason = _IS_KILLED
        elif facility == NOBODY:
            reason = _NO_SUCH_FACILITY
        elif state.instruments[facility]["phase"] == _CLOSED:
            reason = _IS_CLOSED
        elif state.accounts[account]["margin"] != 0 and kind != _REDEEM:
            reason = _NOT_A_CASH_ACCOUNT
        elif quantity < 1 or quantity > _MAX_LOTS:
            reason = _QUANTITY_OUT_OF_RANGE
        elif at_issuer:
            reason, count = _exchange_at_par(state, command, events, count)
        elif kind == _LIQUIDATE:
            reason, count = _liquidate(state, command, events, count)
        elif kind == _BORROW or kind == _REPAY:
            reason, count = _use_debt(state, command, events, count)
        else:
            reason, count = _use_collateral(state, command, events, count)
    if reason != _OK:
        event = market.write(events, count, command, _REQUEST_REJECTED)
        event["instrument"] = NOBODY
        event["order_id"] = command["target_order_id"]
        event["quantity_lots"] = quantity
        event["reason"] = reason
        event["value"] = kind
        count += 1
    return count
