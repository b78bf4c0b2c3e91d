"""A participant that sends a real day's order flow: its decisions were made in 2012, by others."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from aar_swarm import lobster
from aar_swarm.agents.base import OPENED, Action, CancelOrder, Event, PlaceOrder, Rule, Strategy, Timer, Wake
from exchange.config import Config
from exchange.types import CommandKind

_PLACE_ORDER = int(CommandKind.PLACE_ORDER)
_BURST = 500
"""Most actions at once, so that the reports on them are taken up in between."""


class BackgroundParams(Config):
    file: str
    """A LOBSTER day: the zip, or the message file beside its order-book file."""
    speed: Annotated[float, Field(gt=0, le=1e6)] = 1.0


class Background(Strategy):
    """Decision rule: none. Each recorded order, cancel and aggressor goes out at its own time, `speed` times as fast.

    The recording does not know that others trade against its orders now: cancels of what they have taken are rejected,
    which is right. Reading the recording, before the session opens, is its only input beside the market.
    """

    Params = BackgroundParams

    def setup(self, params: Config) -> None:
        assert isinstance(params, BackgroundParams)
        flow = lobster.order_flow(lobster.read(params.file))
        self.due_ns = (flow["time_ns"] / params.speed).astype("i8").tolist()
        self.actions: list[Action] = [
            PlaceOrder(order_id, side, order_type, price_ticks, quantity_lots, int(Rule.REPLAY))
            if kind == _PLACE_ORDER
            else CancelOrder(target, quantity_lots, int(Rule.REPLAY))
            for kind, order_id, target, side, order_type, price_ticks, quantity_lots in zip(
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
