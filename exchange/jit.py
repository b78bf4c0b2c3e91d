"""How this project compiles: one decorator for kernels, one for their inlined helpers, and where the cache lives.

Owns every private or fragile corner of numba that we rely on. Nothing else in the project names `_nrt`.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import types

_numba_config: Any = numba.config

NEVER_COMPILED = frozenset(
    {
        "client",
        "session",
        "session_state",
        "market_data",
        "keys",
        "metrics",
        "server",
        "supervisor",
        "config_file",
        "errors",
        "clock",
    }
)
"""Modules that no compiled code depends on: a change in them leaves the compiled kernels as they are."""


def _cache_directory() -> str:
    """A folder named by a hash of this package's sources.

    numba's own cache watches only the file of the cached function, so that a change in a helper of another module
    would go on running the old code. With the hash in the folder's name, any change compiles anew.
    """
    package = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(package.glob("*.py")):
        if source.stem in NEVER_COMPILED:
            continue
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    mode = "-boundscheck" if _numba_config.BOUNDSCHECK else ""
    name = f"kernels-{digest.hexdigest()}{mode}"
    if "NUMBA_CACHE_DIR" in os.environ:
        return str(Path(os.environ["NUMBA_CACHE_DIR"]) / name)
    if os.access(package, os.W_OK):
        return str(package / "__pycache__" / name)
    # Never in a directory that others can write: a cached kernel is code.
    return str(Path.home() / ".cache" / "aar-swarm" / name)


_numba_config.CACHE_DIR = _cache_directory()

JIT = not _numba_config.DISABLE_JIT

_OPTIONS: dict[str, Any] = {"_nrt": False, "error_model": "numpy", "cache": True}


def _compiled_once(function: Callable, **options: Any) -> Callable:
    """numba would compile a function again for each constant that another one calls it with."""
    compiled = numba.njit(**options, **_OPTIONS)(function)
    if JIT:
        template_of = compiled.get_call_template

        def template_without_constants(arguments: Any, keywords: dict[str, Any]) -> Any:
            plain = {name: types.unliteral(kind) for name, kind in keywords.items()}
            return template_of(tuple(types.unliteral(kind) for kind in arguments), plain)

        compiled.get_call_template = template_without_constants
    return compiled


def kernel(function: Callable) -> Callable:
    """Compile a function that Python calls. It holds no interpreter lock, allocates nothing and raises nothing.

    Without numba's run-time reference counts (`_nrt=False`): they would cost more than the book itself.
    """
    return _compiled_once(function, nogil=True)


def helper(function: Callable) -> Callable:
    """Compile a function that only kernels call; it is inlined, because passing the state by value costs more."""
    return numba.njit(inline="always", **_OPTIONS)(function)


def routine(function: Callable) -> Callable:
    """Compile a function that only kernels call and that is too large, or called from too many places, to inline.

    It costs its callers some 100 ns, as the state is passed by value: not for the path of every order.
    """
    return _compiled_once(function)
