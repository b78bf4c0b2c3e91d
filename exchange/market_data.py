"""A subscriber's view of the market: the latest states, and every trade once, in order. No input or output.

Owns the numbers of public messages. Whoever uses it hands it each TopOfBook, Depth, Indicative and Trade, and sends
the TRADES_REQUESTs that it asks for.
"""

from dataclasses import dataclass, field

from exchange import clock, wire

_RETRY_NS = clock.SECOND
_ATTEMPTS = 5
"""Requests for one gap before what it held is given up."""


@dataclass
class _Tape:
    """The trades of one instrument."""

    next: int = 0  # the number awaited; 0: nothing was heard yet
    last_sequence: int = 0
    held: dict[int, wire.Trade] = field(default_factory=dict)  # heard beyond a gap
    until: int = 0  # trades below it are known to have happened
    ask_ns: int = 0
    asked: int = 0  # the first number of the latest request
    attempts: int = 0


class MarketData:
    """The latest top, depth and indication of each instrument, and its tape of trades."""

    def __init__(self) -> None:
        self.gaps = 0
        """Runs of trades that did not come by themselves."""
        self.repaired = 0
        """Trades that came because they were asked for."""
        self.lost = 0
        """Trades that the venue no longer knew."""
        self._tops: dict[tuple[int, int], wire.TopOfBook] = {}
        self._depths: dict[int, wire.Depth] = {}
        self._indicatives: dict[int, wire.Indicative] = {}
        self._tapes: dict[int, _Tape] = {}

    def top(self, instrument: int, slow: bool = False) -> wire.TopOfBook | None:
        """The latest top of the book, or None if none was heard."""
        kind = wire.MessageKind.SLOW_TOP_OF_BOOK if slow else wire.MessageKind.TOP_OF_BOOK
        return self._tops.get((kind, instrument))

    def depth(self, instrument: int) -> wire.Depth | None:
        """The latest prices and lots of both sides, or None if none were heard."""
        return self._depths.get(instrument)

    def indicative(self, instrument: int) -> wire.Indicative | None:
        """What the call auction would last have cleared at, or None if none was heard."""
        return self._indicatives.get(instrument)

    def take_state(self, message: wire.TopOfBook | wire.Depth | wire.Indicative, published: bool = True) -> bool:
        """Keep a conflated state; False if a newer one is known. `published`: it was not an answer to a request."""
        if isinstance(message, wire.TopOfBook):
            if _older(message, self._tops.get((message.kind, message.instrument))):
                return False
            self._tops[message.kind, message.instrument] = message
        elif isinstance(message, wire.Indicative):
            if _older(message, self._indicatives.get(message.instrument)):
                return False
            self._indicatives[message.instrument] = message
        else:
            if _older(message, self._depths.get(message.instrument)):
                return False
            self._depths[message.instrument] = message
            if published and message.instrument in self._tapes:  # it came behind the trades that it counts
                self._expect(self._tapes[message.instrument], message.trade_number + 1)
        return True

    def take_trade(self, trade: wire.Trade, requested: bool = False) -> list[wire.Trade]:
        """Take one trade, published or requested; returns those that are now next in order."""
        tape = self._tapes.setdefault(trade.instrument, _Tape())
        if tape.next == 0:
            if requested:
                return [trade]  # of before this subscription: its listener asked for it
            tape.next = trade.number
        if trade.number < tape.next:
            if requested or trade.sequence <= tape.last_sequence:
                return []
            tape.next, tape.until = trade.number, 0  # the venue counts anew
            tape.held.clear()
        if trade.number > tape.next:
            if not requested:
                tape.held[trade.number] = trade
                self._expect(tape, trade.number)
                return []
            self.lost += trade.number - tape.next  # answers come without gaps: what is before it is forgotten
            tape.next = tape.asked = trade.number
        if requested:
            self.repaired += 1
            tape.attempts = 0
        return self._run(tape, trade)

    def requests(self, now_ns: int) -> list[tuple[int, int]]:
        """The (instrument, first number) of the TRADES_REQUESTs to send now; each is repeated until it is answered."""
        due = []
        for instrument, tape in self._tapes.items():
            if tape.next < tape.until and now_ns >= tape.ask_ns and tape.attempts < _ATTEMPTS:
                tape.attempts += 1
                tape.ask_ns = now_ns + _RETRY_NS
                tape.asked = tape.next
                due.append((instrument, tape.next))
        return due

    def abandon(self, now_ns: int) -> list[wire.Trade]:
        """Give up gaps that nobody fills; returns the trades behind them."""
        found: list[wire.Trade] = []
        for tape in self._tapes.values():
            if tape.next < tape.until and tape.attempts >= _ATTEMPTS and now_ns >= tape.ask_ns:
                resume = min(tape.held, default=tape.until)
                self.lost += resume - tape.next
                tape.next, tape.attempts, tape.ask_ns = resume, 0, 0
                if resume in tape.held:
                    found += self._run(tape, tape.held.pop(resume))
        return found

    def due_ns(self) -> int | None:
        """When requests() or abandon() have something to do next; None: nothing is missing."""
        return min((tape.ask_ns for tape in self._tapes.values() if tape.next < tape.until), default=None)

    def _expect(self, tape: _Tape, until: int) -> None:
        """Trades below `until` have happened."""
        if until > tape.until:
            if tape.next >= tape.until and tape.next < until:
                self.gaps += 1
                tape.attempts, tape.ask_ns = 0, 0
            tape.until = until

    def _run(self, tape: _Tape, trade: wire.Trade) -> list[wire.Trade]:
        """This trade and those held that follow it without a gap."""
        run = [trade]
        while (following := tape.held.pop(run[-1].number + 1, None)) is not None:
            run.append(following)
        tape.next, tape.last_sequence = run[-1].number + 1, run[-1].sequence
        for number in [number for number in tape.held if number < tape.next]:
            del tape.held[number]
        if tape.next < tape.until and tape.next - tape.asked >= wire.MAX_TRADES_RESENT:
            tape.ask_ns = 0  # the answer was full: ask for the rest
        return run


def _older(
    message: wire.TopOfBook | wire.Depth | wire.Indicative,
    known: wire.TopOfBook | wire.Depth | wire.Indicative | None,
) -> bool:
    return known is not None and message.sequence < known.sequence
