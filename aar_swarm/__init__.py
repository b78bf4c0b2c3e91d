"""The laboratory: scenarios, agents, runs and what they show. `aar_swarm.run("exit-door", agents=1000)`."""

from typing import Any

__all__ = ["Run", "compare", "compare_designs", "load", "measure_defences", "measure_scaling", "run", "sweep"]


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: an agent's process imports this package too, and needs none of it."""
    if name in ("Run", "load"):
        from aar_swarm import results

        return getattr(results, name)
    if name == "run":
        from aar_swarm.runner import run

        return run
    if name == "compare":
        from aar_swarm.comparison import compare

        return compare
    if name == "compare_designs":
        from aar_swarm.designs import compare_designs

        return compare_designs
    if name == "measure_defences":
        from aar_swarm.defences import measure_defences

        return measure_defences
    if name == "sweep":
        from aar_swarm.sweeps.performing import sweep

        return sweep
    if name == "measure_scaling":
        from aar_swarm.sweeps.scaling import measure_scaling

        return measure_scaling
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
