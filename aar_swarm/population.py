"""How many of each kind there are: fixed counts, then the rest or weights. Knows nothing of what they hold or do."""

from fractions import Fraction

from aar_swarm.scenario_tables import Group
from exchange.errors import ConfigurationError


def counts(scenario: str, groups: dict[str, Group], agents: int) -> dict[str, int]:
    """How many of each group there are among so many agents.

    Raises: ConfigurationError: too few agents, or none that takes the rest; it names the scenario.
    """
    fixed = {name: group.count for name, group in groups.items() if isinstance(group.count, int)}
    weighed = {name: group for name, group in groups.items() if group.weight is not None}
    rest = [name for name, group in groups.items() if group.count == "rest"]
    if len(rest) > 1 or (rest and weighed):
        raise ConfigurationError(
            f"scenario {scenario}: more than one group takes the rest ({', '.join([*rest, *weighed])})"
        )
    needed = {**fixed, **{name: group.at_least for name, group in weighed.items() if group.at_least}}
    flexible = bool(rest or weighed)
    if sum(needed.values()) > agents or (not flexible and sum(needed.values()) != agents):
        raise ConfigurationError(
            f"--agents {agents}: scenario {scenario} needs {'at least ' if flexible else ''}"
            f"{sum(needed.values())} ({', '.join(f'{name} {count}' for name, count in needed.items())}); "
            f"ask for more agents or lower a count, as --set {next(iter(groups))}.count=1"
        )
    left = agents - sum(fixed.values())
    shared = _by_weight(scenario, left, weighed) if weighed else dict.fromkeys(rest, left)
    return {name: fixed[name] if name in fixed else shared[name] for name in groups}


def _by_weight(scenario: str, agents: int, groups: dict[str, Group]) -> dict[str, int]:
    """Divide agents in proportion to weights, by largest remainders; who would get too few gets at_least first."""
    least = {name: group.at_least for name, group in groups.items()}
    found: dict[str, int] = {}
    while True:
        left = agents - sum(found.values())
        weights = {name: Fraction(str(group.weight)) for name, group in groups.items() if name not in found}
        total = sum(weights.values())
        quotas = {name: left * weight / total if total else Fraction(0) for name, weight in weights.items()}
        short = {name: least[name] for name, quota in quotas.items() if quota < least[name]}
        if not short:
            break
        found |= short
    if left and not total:
        raise ConfigurationError(f"scenario {scenario}: nobody takes {left} of the agents; give a group a weight")
    found |= {name: int(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: int(quotas[name]) - quotas[name])  # stable: the first of equals
    for name in by_remainder[: agents - sum(found.values())]:
        found[name] += 1
    return found
