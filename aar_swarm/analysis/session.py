"""One session as arrays, the moments that measures refer to, and what accounts are worth at them. No measures.

Prices in ticks and money in minor units; `tick_size` of the scenario turns minor units into currency.
"""

from functools import cached_property

import numpy as np

from aar_swarm.analysis.ledger import TRANSFERS, Holdings, follow, is_kind
from aar_swarm.scenario import Scenario
from exchange.clock import MS
from exchange.config import EngineConfig, InstrumentConfig
from exchange.state import Array
from exchange.types import DECISION_COMMANDS, EventKind

BPS = 10_000
MAIN = 0
"""The instrument whose price the measures are about."""
CROWD = "crowd"
"""The name that a scenario gives to the group whose exit is studied."""
RECORDING = "background"
"""The name of the group that sends a recorded day."""


class Session:
    """A session. Sequences and times as in the journal; `fills` and `transfers` are those of the main instrument."""

    def __init__(
        self,
        scenario: Scenario,
        groups: list[str],
        commands: Array,
        events: Array,
        tops: Array,
        config: EngineConfig | None = None,
        coin_tops: Array | None = None,
        leverages: list[float] | None = None,
    ) -> None:
        """Args: groups: the kind of participant, by account; tops: TOP[commands] of the main instrument, coin_tops: of
        the stablecoin; config: of the engine (None: one instrument, cash accounts only); leverages: by account.
        """
        self.scenario = scenario
        self.groups = np.array(groups)
        self.commands = commands
        self.events = events
        self.tops = tops
        self.coin_tops = coin_tops
        self.leverages = None if leverages is None else np.array(leverages)
        self.config = config or EngineConfig(
            instruments=(InstrumentConfig(price_levels=scenario.instrument.price_levels),), accounts=len(groups)
        )
        self.coin = self.config.stablecoin.instrument if self.config.stablecoin else None
        self.multiplier = self.config.instruments[MAIN].multiplier
        self.tick_size = scenario.instrument.tick_size
        self.opened_ns = self._first(EventKind.SESSION_OPENED, "time_ns")
        self.open_sequence = self._first(EventKind.SESSION_OPENED, "sequence")
        self.signal_ns = self._first(EventKind.SIGNAL_PUBLISHED, "time_ns")
        self.signal_sequence = self._first(EventKind.SIGNAL_PUBLISHED, "sequence")
        self.signal_instrument = self._first(EventKind.SIGNAL_PUBLISHED, "instrument")
        self.close_sequence = self._first(EventKind.SESSION_CLOSED, "sequence") or len(commands) + 1
        self.start_sequence = self.signal_sequence or self.open_sequence or self.close_sequence
        """Where losses count from: the signal, or without one the opening."""
        self.fills = self.fills_of(MAIN)
        moved = events[is_kind(events, *TRANSFERS)]
        self.transfers = moved[moved["instrument"] == MAIN]
        """How lots changed hands: fills, and what the insurance fund took over and deleveraging closed."""

    def _first(self, kind: EventKind, field: str) -> int | None:
        found = self.events[self.events["kind"] == kind]
        return int(found[field][0]) if len(found) else None

    def fills_of(self, instrument: int) -> Array:
        return self.events[is_kind(self.events, EventKind.ORDER_FILLED) & (self.events["instrument"] == instrument)]

    def after_signal(self, records: Array) -> Array:
        """Those of the events or commands that came after the signal; all of them without one."""
        return records if self.signal_sequence is None else records[records["sequence"] > self.signal_sequence]

    def since_signal_ms(self, times_ns: Array) -> Array:
        """float64: since the signal; since the opening (or the first command) without one."""
        zero_ns = self.signal_ns or self.opened_ns or int(self.commands["received_ns"][0])
        return (times_ns - zero_ns) / MS

    def mid_before(self, sequence: int, instrument: int = MAIN) -> float | None:
        """The mid after the last command before `sequence`; the last trade's price if a side is empty; or None."""
        tops = self.tops if instrument == MAIN else self.coin_tops
        if sequence < 2 or tops is None:
            return None
        top = tops[sequence - 2]
        if top["bid_lots"] and top["ask_lots"]:
            return float(top["bid_ticks"] + top["ask_ticks"]) / 2
        fills = self.fills_of(instrument)
        earlier = fills[fills["sequence"] < sequence]
        return float(earlier["price_ticks"][-1]) if len(earlier) else None

    def holdings(self, before_sequence: int) -> Holdings:
        """What every account has before a command, from the events alone; the venue's own are behind `groups`."""
        return follow(self.config, self.events[self.events["sequence"] < before_sequence])

    def prices(self, before_sequence: int) -> Array:
        """float64[instruments], minor units a lot: the mids as in mid_before.

        Where there is none yet: the mid at start_sequence, then the opening price (of the stablecoin: par).
        """
        prices = np.zeros(len(self.config.instruments))
        for number, instrument in enumerate(self.config.instruments):
            known = self.scenario.instrument.opening_ticks
            if self.config.stablecoin and number == self.coin:
                known = self.config.stablecoin.par_ticks
            found = self.mid_before(before_sequence, number) or self.mid_before(self.start_sequence, number) or known
            prices[number] = found * instrument.multiplier
        return prices

    def worth(self, before_sequence: int) -> Array:
        """float64[accounts], minor units: cash + lots at the mids + collateral at its mid − debt at its mid."""
        has, prices = self.holdings(before_sequence), self.prices(before_sequence)
        worth = has.cash + has.lots @ prices
        if self.config.lending:
            worth += has.collateral * prices[self.config.lending.collateral_instrument]
            worth -= has.debt * prices[self.config.lending.debt_instrument]
        return worth

    @cached_property
    def losses(self) -> Array:
        """float64[participants], currency: worth before the signal (or the opening) less worth before the close."""
        lost = self.worth(self.start_sequence) - self.worth(self.close_sequence)
        return lost[: len(self.groups)] * self.tick_size

    @cached_property
    def arrivals(self) -> Array:
        """Accounts in the order in which each one's first command after the signal arrived; a recorded day's not."""
        commands = self.commands[np.isin(self.commands["kind"], DECISION_COMMANDS)]
        if self.signal_sequence is None:
            return np.zeros(0, np.int64)
        mine = self.after_signal(commands)
        accounts = mine["account"]
        mine = mine[(accounts >= 0) & (accounts < len(self.groups))]
        mine = mine[self.groups[mine["account"]] != RECORDING]
        found, first = np.unique(mine["account"], return_index=True)
        return found[np.argsort(first)]


def most_within(times_ns: Array, amounts: Array, window_ns: int) -> int:
    """The largest sum of amounts (≥ 0) within any (t − window, t]; 0 of nothing. times_ns must not decrease."""
    if not len(times_ns):
        return 0
    total = np.concatenate([[0], np.cumsum(amounts)])
    before = np.searchsorted(times_ns, times_ns - window_ns, side="right")
    return int((total[1:] - total[before]).max())
