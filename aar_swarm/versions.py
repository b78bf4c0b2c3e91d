"""Which versions of what a run was made with."""

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("aar-swarm", "ray", "numpy", "numba", "llvmlite", "pyzmq", "msgpack", "polars")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
