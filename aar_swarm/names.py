"""Names to things: `module:Class` strings, and a random stream for each agent. The one place that makes a generator."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from aar_swarm.agents.base import Strategy
from exchange.errors import ConfigurationError


def strategy_class(name: str) -> type[Strategy]:
    """The strategy that `module:Class` names.

    Raises: ConfigurationError: no such module or class, or not a Strategy.
    """
    module_name, _, class_name = str(name).partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything while it is imported
        raise ConfigurationError(f"strategy {name!r}: {error}; write it as module:Class") from None
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigurationError(f"strategy {name!r} is not a subclass of aar_swarm.agents.base.Strategy")
    return found


def function_named(name: str) -> Callable[..., Any]:
    """The function that `module:function` names.

    Raises: ConfigurationError: no such module or function.
    """
    module_name, _, function_name = str(name).partition(":")
    try:
        found = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything while it is imported
        raise ConfigurationError(f"measures {name!r}: {error}; write it as module:function") from None
    if not callable(found):
        raise ConfigurationError(f"measures {name!r} is not a function")
    return found


def agent_stream(run_seed: int, agent_id: int) -> np.random.Generator:
    """The agent's own random stream: independent of every other agent's, the same in every run of the seed."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(run_seed, spawn_key=(agent_id,))))


def order_stream(run_seed: int, first_agent: int) -> np.random.Generator:
    """Of the process of this agent and those after it: who of them hears first. Apart from every agent's own."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(run_seed, spawn_key=(first_agent, 0, 0))))


def vendor_stream(run_seed: int, vendor: int, purpose: int) -> np.random.Generator:
    """A vendor's own stream (−1: what all vendors have in common), apart from those of agents."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(run_seed, spawn_key=(vendor + 1, purpose))))


def news_stream(run_seed: int) -> np.random.Generator:
    """That of the session's public news, apart from those of agents and vendors."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(run_seed, spawn_key=(0, 0, 0))))
