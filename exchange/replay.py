"""From a journal back to the engine: every event again, and the same state hash.

Owns the digest over events, by which a replay proves that every one of them is the same, not only the end state.
"""

from typing import NamedTuple

import numpy as np

from exchange.bits import mix
from exchange.config import EngineConfig
from exchange.engine import Engine, apply_commands, events_bound
from exchange.jit import kernel
from exchange.state import Array
from exchange.types import COMMAND, EVENT

RECENT_EVENTS = 1 << 16
"""How many of the last events a follower keeps, for participants who come back and ask what they missed."""
_CHUNK = 512
"""Commands at a time, so that their events are still in the processor's cache when they are digested."""


@kernel
def digest_events(digest, words, count):
    """Fold the first `count` events (int64[n, 17]) onto a running digest."""
    for at in range(count):
        for word in words[at]:
            digest = mix(digest, word)
    return digest


@kernel
def follow(state, commands, events, event_words, recent_words, digest, total):
    """Apply commands, digest their events, and keep the last of them in a ring.

    Args: events, event_words: scratch, the same memory; recent_words: int64[2^k, 17], event number i at i mod 2^k;
    digest, total: of all events before.
    Returns: (digest, total) after.
    """
    done = 0
    mask = recent_words.shape[0] - 1
    while done < commands.shape[0]:
        done, count = apply_commands(state, commands, done, min(done + _CHUNK, commands.shape[0]), events)
        for at in range(count):
            slot = (total + at) & mask
            for field in range(event_words.shape[1]):
                word = event_words[at, field]
                digest = mix(digest, word)
                recent_words[slot, field] = word
        total += count
    return digest, total


def as_words(records: Array) -> Array:
    """The same memory as int64[n, fields]."""
    return records.view("<i8").reshape(-1, len(records.dtype.names or ()))


class Replay(NamedTuple):
    engine: Engine
    events: Array  # EVENT[m]
    events_digest: str


def format_digest(digest: int) -> str:
    return f"{digest & (1 << 64) - 1:016x}"


def replay(config: EngineConfig, commands: Array) -> Replay:
    """Apply a whole journal to a new engine."""
    engine = Engine(config)
    events = engine.apply(commands)
    return Replay(engine, events, format_digest(int(digest_events(0, as_words(events), len(events)))))


def state_hashes(config: EngineConfig, commands: Array, sequences: list[int]) -> dict[int, str]:
    """The state hash right after each of these commands, whose sequences count from the first of `commands`."""
    engine = Engine(config)
    found: dict[int, str] = {}
    done = 0
    for sequence in sorted(set(sequences)):
        engine.apply(commands[done:sequence])
        done = sequence
        found[sequence] = engine.state_hash()
    return found


class Follower:
    """An engine that is given a journal part by part, and keeps of its events their number, digest and the last."""

    def __init__(self, config: EngineConfig) -> None:
        self.engine = Engine(config)
        self.sequence = 0
        """Of the last command; the next four, too, are as of then."""
        self.check: int | None = None
        self.last_ns = 0
        self.events = 0
        self.events_digest = 0
        self._buffer = np.empty(events_bound(self.engine.state) + 4 * _CHUNK, EVENT)
        self._ring = np.empty(RECENT_EVENTS, EVENT)
        self._follow(np.zeros(0, COMMAND))  # compiles, where nothing waits for it

    def apply(self, commands: Array) -> None:
        """Apply commands (COMMAND[n]), whose sequences must follow on from the last."""
        if not len(commands):
            return
        if int(commands["sequence"][0]) != self.sequence + 1:
            raise ValueError(f"command {commands['sequence'][0]} does not follow command {self.sequence}")
        self._follow(commands)
        last = commands[-1]
        self.sequence, self.check, self.last_ns = int(last["sequence"]), int(last["check"]), int(last["received_ns"])

    def _follow(self, commands: Array) -> None:
        digest, events = follow(
            self.engine.state,
            commands,
            self._buffer,
            as_words(self._buffer),
            as_words(self._ring),
            self.events_digest,
            self.events,
        )
        self.events_digest, self.events = int(digest), int(events)

    def recent(self) -> Array:
        """EVENT[r]: the last events, at most RECENT_EVENTS, oldest first."""
        if self.events <= RECENT_EVENTS:
            return self._ring[: self.events].copy()
        at = self.events % RECENT_EVENTS
        return np.concatenate([self._ring[at:], self._ring[:at]])

    def keep(self, recent: Array) -> None:
        """Take over the last events (EVENT[r], oldest first) of which `events` already counts."""
        slots = np.arange(self.events - len(recent), self.events) % RECENT_EVENTS
        self._ring[slots] = recent
