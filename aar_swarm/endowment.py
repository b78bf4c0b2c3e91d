"""What the operator tells the venue so that everyone holds what the scenario says, and at the signal.

Owns the order of those commands: prices elsewhere first, because a margin account's equity is counted at them.
"""

from aar_swarm.scenario import Scenario
from aar_swarm.scenario_tables import COIN, MAIN
from exchange.types import CommandKind, SystemAccount

OperatorCommand = tuple[int, int, int, int]
"""kind, account, instrument, amount."""
_BPS = 10_000


def opening_commands(scenario: Scenario, agents: int) -> list[OperatorCommand]:
    """Index prices, margin accounts, deposits, what margin accounts owe, and the venue's own accounts."""
    endowments = scenario.endowments(agents)
    on_margin = [account for account, endowment in enumerate(endowments) if endowment.leverage]
    cash = [scenario.participants[name].cash for name, _ in scenario.members(agents)]
    commands = [
        *((CommandKind.PUBLISH_INDEX, 0, number, ticks) for number, ticks in enumerate(_index(scenario))),
        *((CommandKind.SET_MARGIN, account, 0, 1) for account in on_margin),
        *((CommandKind.DEPOSIT_CASH, account, 0, amount) for account, amount in enumerate(cash)),
        *((CommandKind.DEPOSIT_POSITION, account, MAIN, each.shares) for account, each in enumerate(endowments)),
        *((CommandKind.DEPOSIT_POSITION, account, COIN, each.coins) for account, each in enumerate(endowments)),
        # What its shares cost beyond its own money was paid out of a loan of the venue.
        *((CommandKind.WITHDRAW_CASH, account, 0, cash[account] - endowments[account].cash) for account in on_margin),
    ]
    if scenario.margin:
        fund = agents + SystemAccount.INSURANCE_FUND
        commands.append((CommandKind.DEPOSIT_CASH, fund, 0, scenario.margin.insurance_fund))
    if scenario.lending:
        pool = agents + SystemAccount.LENDING_POOL
        commands.append((CommandKind.DEPOSIT_POSITION, pool, COIN, scenario.lending.pool_lots))
    if scenario.stablecoin:
        issuer = agents + SystemAccount.ISSUER
        commands.append((CommandKind.DEPOSIT_CASH, issuer, 0, scenario.stablecoin.reserves))
        commands.append((CommandKind.DEPOSIT_POSITION, issuer, COIN, scenario.stablecoin.treasury_lots))
    return [(int(kind), int(account), number, amount) for kind, account, number, amount in commands if amount]


def news_command(bps: int) -> OperatorCommand:
    """A piece of news of the main instrument. It moves no price of another venue: scenarios with one have a signal."""
    return (int(CommandKind.PUBLISH_SIGNAL), 0, MAIN, bps)


def signal_commands(scenario: Scenario) -> list[OperatorCommand]:
    """The signal, and the price of another venue, which hears it too and has no crowd."""
    signal = scenario.signal
    commands = [(int(CommandKind.PUBLISH_SIGNAL), 0, signal.instrument, signal.bps)]
    if index := _index(scenario):
        ticks = index[signal.instrument] * (_BPS + signal.bps) // _BPS
        highest = scenario.instruments()[signal.instrument].price_levels - 1
        commands.append((int(CommandKind.PUBLISH_INDEX), 0, signal.instrument, min(max(ticks, 1), highest)))
    return commands


def _index(scenario: Scenario) -> list[int]:
    """The opening price of each instrument elsewhere; nobody asks for it but where money can run out or is capped."""
    capped = scenario.admission.vendor_capital_bps
    if not (scenario.margin or scenario.lending or scenario.stablecoin or capped):
        return []
    return [traded.opening_ticks for traded in scenario.instruments()]
