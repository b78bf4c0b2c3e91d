"""A participant that sends a real day's order flow: its decisions were made in 2012, by others."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from aar_swarm import lobster
from aar_swarm.agents.base import OPENED, Action, CancelOrder, Event, PlaceOrder, Rule, Strategy, Timer, Wake
from aar_swarm.agents.decision import Choice, Decision, private
from exchange.clock import SECOND
from exchange.config import Config
from exchange.types import CommandKind

_PLACE_ORDER = int(CommandKind.PLACE_ORDER)
_BURST = 500
"""Most actions at once, so that the reports on them are taken up in between."""


class BackgroundParams(Config):
    file: str
    """A LOBSTER day: the zip, or the message file beside its order-book file."""
    speed: Annotated[float, Field(gt=0, le=1e6)] = 1.0


def replay(row: int, time_ns: int, side: int, order_type: int, price_ticks: int, quantity_lots: int) -> Choice:
    """As the row of the recording says: nobody decided on it here, so here the action is its own cause."""
    return Choice(side, order_type, price_ticks, quantity_lots)


_REPLAY = Decision(
    replay,
    (
        private("row"),  # of the day's file, from 0; -1: of the opening book
        private("time_ns"),  # since the first row of the day
        private("side"),
        private("order_type"),
        private("price_ticks"),
        private("quantity_lots"),
    ),
    lambda v: f"the recorded day has it at {v.time_ns / SECOND:.6f} s, in row {v.row}",
)


class Background(Strategy):
    """Decision rule: none. Each recorded order, cancel and aggressor goes out at its own time, `speed` times as fast.

    The recording does not know that others trade against its orders now: cancels of what they have taken are rejected,
    which is right. Reading the recording, before the session opens, is its only input beside the market.
    """

    Params = BackgroundParams
    decisions: ClassVar[Mapping[int, Decision]] = {Rule.REPLAY: _REPLAY}

    def setup(self, params: Config) -> None:
        assert isinstance(params, BackgroundParams)
        flow = lobster.order_flow(lobster.read(params.file))
        self.due_ns = (flow["time_ns"] / params.speed).astype("i8").tolist()
        self.actions: list[Action] = [
            PlaceOrder(
                order_id,
                *replay(row, time_ns, side, order_type, price_ticks, quantity_lots),
                int(Rule.REPLAY),
                0,
                _REPLAY.words(row, time_ns, side, order_type, price_ticks, quantity_lots),
            )
            if kind == _PLACE_ORDER
            else CancelOrder(target, quantity_lots, int(Rule.REPLAY))
            for kind, order_id, target, side, order_type, price_ticks, quantity_lots, row, time_ns in zip(
                *(
                    flow[name].tolist()
                    for name in (
                        "kind",
                        "order_id",
                        "target_order_id",
                        "side",
                        "order_type",
                        "price_ticks",
                        "quantity_lots",
                        "row",
                        "time_ns",
                    )
                ),
                strict=True,
            )
        ]
        self.sent = 0
        self.opened_ns = 0

    def on_event(self, event: Event, now_ns: int) -> Sequence[Action]:
        if event.kind == OPENED:
            self.opened_ns = now_ns
        elif not isinstance(event, Timer):
            return ()
        if self.halted:
            return ()
        first = self.sent
        elapsed_ns = now_ns - self.opened_ns
        while self.sent < len(self.actions) and self.due_ns[self.sent] <= elapsed_ns and self.sent - first < _BURST:
            self.sent += 1
        actions = self.actions[first : self.sent]
        if self.sent < len(self.actions):
            actions.append(Wake(self.opened_ns + self.due_ns[self.sent], 0))
        return actions
