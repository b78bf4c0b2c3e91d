"""Who may log on with which model, and trade: docs/admission.md, for `tests.oracle`. Written from the document alone.

The members of a vendor and what they are worth are counted afresh at each logon, and the window of the flow is
summed afresh at each order.
"""

from typing import TYPE_CHECKING, NamedTuple

from exchange.types import OrderType, Phase, Reason, Side
from tests.oracle_margin import share
from tests.oracle_records import BPS, Account, Command, Explained

if TYPE_CHECKING:
    from tests.oracle import Oracle

VENDORS = 1024
MOST_MODEL = 2**31 - 1
MOST_WORTH = 2**42
"""Of one account, and of one order."""
MOST_ORDERS = 65_536
"""That the window of the flow holds."""


class Entered(NamedTuple):
    """An order that could take something."""

    time_ns: int
    vendor: int
    value: int


class Admission:
    """Declaration, gate, caps and explanations of one venue."""

    def __init__(self, oracle: "Oracle") -> None:
        self.oracle = oracle
        self.settings = oracle.config.admission
        self.flow: list[Entered] = []
        """Of all vendors, oldest first; 0 among them."""

    def _participants(self) -> list[Account]:
        return self.oracle.accounts[: self.oracle.participants]

    # Logons

    def log_on_refusal(self, c: Command) -> Reason:
        """Checks 1 to 5, of a participant that was not killed."""
        vendor, model, version = c.target_order_id, c.order_type, c.price_ticks
        if not (0 <= vendor < VENDORS and 0 <= model <= MOST_MODEL and 0 <= version <= MOST_MODEL):
            return Reason.MALFORMED
        if self.settings is None:
            return Reason.NONE
        own = self.oracle.accounts[c.account]
        if own.logged_on and (vendor, model, version) != (own.vendor, own.model, own.model_version):
            return Reason.DECLARED_OTHERWISE
        if vendor == 0:
            return Reason.UNDECLARED if self.settings.declaration_required else Reason.NONE
        if self.settings.validated is not None and (vendor, model, version) not in self.settings.validated:
            return Reason.NOT_VALIDATED
        everybody = self._participants()
        members = [number for number in range(len(everybody)) if number == c.account or self._is_there(number, vendor)]
        cap_bps = self.settings.vendor_agents_bps
        if cap_bps and len(members) * BPS > cap_bps * len(everybody):
            return Reason.VENDOR_AGENTS_CAP
        cap_bps = self.settings.vendor_capital_bps
        if cap_bps:
            worth = [self.capital(each) for each in everybody]
            if sum(worth[number] for number in members) > share(sum(worth), cap_bps):
                return Reason.VENDOR_CAPITAL_CAP
        return Reason.NONE

    def _is_there(self, number: int, vendor: int) -> bool:
        account = self.oracle.accounts[number]
        return account.vendor == vendor and bool(account.logged_on or self.oracle.resting_of(number))

    def capital(self, account: Account) -> int:
        worth = account.cash
        for instrument, position in zip(self.oracle.instruments, account.positions, strict=True):
            price_ticks = instrument.last_ticks or instrument.index_ticks
            held = instrument.notional(price_ticks, position.quantity_lots)
            worth += min(max(held, -MOST_WORTH), MOST_WORTH)
            worth = min(max(worth, -MOST_WORTH), MOST_WORTH)
        return max(worth, 0)

    # Orders

    def explain(self, c: Command) -> None:
        if self.oracle.account_exists(c.account):
            self.oracle.accounts[c.account].explained = Explained(c.order_id, c.rule)

    def order_refusal(self, c: Command) -> Reason:
        """Check 3, after the message rate."""
        account = self.oracle.accounts[c.account]
        if self.settings is not None and not account.logged_on:
            return Reason.NOT_LOGGED_ON
        if self.oracle.config.explanations_required and account.explained != (c.order_id, c.rule):
            return Reason.UNEXPLAINED
        return Reason.NONE

    def flow_refusal(self, c: Command, side: int, lots: int) -> Reason:
        """Check 13, of an order that passed all others: it is entered unless refused. lots: what it brings."""
        settings, instrument = self.settings, self.oracle.instruments[c.instrument]
        if settings is None or not settings.vendor_flow_bps or instrument.phase != Phase.CONTINUOUS:
            return Reason.NONE
        value = min(self._could_take(c, side, lots), MOST_WORTH)
        if value == 0:
            return Reason.NONE
        vendor = self.oracle.accounts[c.account].vendor
        self.flow = [each for each in self.flow if each.time_ns > c.received_ns - settings.flow_window_ns]
        if len(self.flow) == MOST_ORDERS:
            self.flow = self.flow[1:]
        of_all = sum(each.value for each in self.flow) + value
        of_vendor = sum(each.value for each in self.flow if each.vendor == vendor) + value
        if vendor and of_vendor > settings.flow_floor and of_vendor > share(of_all, settings.vendor_flow_bps):
            return Reason.VENDOR_FLOW_CAP
        self.flow = [*self.flow, Entered(c.received_ns, vendor, value)]
        return Reason.NONE

    def _could_take(self, c: Command, side: int, lots: int) -> int:
        instrument = self.oracle.instruments[c.instrument]
        value, left = 0, lots
        for order in instrument.resting_of(1 - side):
            worse = order.price_ticks > c.price_ticks if side == Side.BUY else order.price_ticks < c.price_ticks
            if left == 0 or (worse and c.order_type != OrderType.MARKET):
                break
            taken = min(left, order.leaves_lots)
            value += instrument.notional(order.price_ticks, taken)
            left -= taken
        return 0 if c.order_type == OrderType.FOK and left else value

    # What can be asked of it

    def flow_words(self) -> list[int]:
        """As the state hash has them."""
        if self.settings is None or not self.settings.vendor_flow_bps:
            return []
        words = [0] * VENDORS
        for each in self.flow:
            words[each.vendor] += each.value
        return words

    def check_invariants(self) -> None:
        """Of those who are there: each was admitted, and there is room for all of them."""
        everybody = self._participants()
        for each in everybody:
            assert (
                0 <= each.vendor < VENDORS and 0 <= each.model <= MOST_MODEL and 0 <= each.model_version <= MOST_MODEL
            )
        assert len(self.flow) <= MOST_ORDERS
        assert all(0 < each.value <= MOST_WORTH for each in self.flow)
        if self.settings is None:
            return
        there = [each for number, each in enumerate(everybody) if each.logged_on or self.oracle.resting_of(number)]
        assert not self.settings.declaration_required or all(each.vendor for each in there)
        for each in there:
            gate, cap_bps = self.settings.validated, self.settings.vendor_agents_bps
            if not each.vendor:
                continue
            assert gate is None or (each.vendor, each.model, each.model_version) in gate
            members = sum(other.vendor == each.vendor for other in there)
            assert not cap_bps or members * BPS <= cap_bps * len(everybody), "more of one vendor's than the cap allows"
