"""How alike participants are: by what they are called, and by what they do.

Concentration of declared models (HHI, effective number), herding (LSV) with a test of overdispersion, and an audit by
behaviour: participants who answer the same public messages in the same way are one model, whatever they are called.
Reads frames; knows nothing of processes. Formulas in docs/diversity.md.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse, stats
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from aar_swarm.analysis.price import two_sided_mids
from aar_swarm.results import Run
from exchange.clock import MS
from exchange.errors import ConfigurationError
from exchange.state import Array
from exchange.types import CommandKind, EventKind

HIGHLY_CONCENTRATED = 1800
"""Points of the HHI: US merger guidelines of 2023; the FSB uses it for providers of AI."""
_FEWEST_ACTIVE = 5
"""Participants who must have traded in a window for it to count."""
_FEWEST_COMMON = 10
"""Public messages that two must both have answered before they are compared."""
_ALIKE = 0.95
_FEWEST_ANSWERS = 200
"""Common answers, over all pairs, before two names are compared."""
_SAME = 0.02
_SHOWN = 10


def herfindahl(sizes: Iterable[float]) -> float | None:
    """The Herfindahl–Hirschman index of shares in percent: 10,000 for one, 10,000 / n for n equal; None if empty."""
    values = np.array([size for size in sizes if size > 0], float)
    if not len(values):
        return None
    return float(((values / values.sum() * 100) ** 2).sum())


def effective_number(sizes: Iterable[float]) -> float | None:
    """How many equal ones would be as concentrated: 10,000 / HHI."""
    index = herfindahl(sizes)
    return None if index is None else 10_000 / index


def lsv(buyers: Array, active: Array) -> dict[str, float] | None:
    """Herding after Lakonishok, Shleifer and Vishny (1992).

    Args: buyers, active: int64[w]: of each window (or stock), how many bought on balance, of how many who traded.
    Returns: mean: the mean of H = |b/n − p| − E|Bin(n, p)/n − p| over windows, p the pooled share of buyers; largest:
    the largest H; dispersion: Pearson's χ²/(w − 1) of b against Bin(n, p), 1 without herding; p_value: that of χ². H
    understates herding, as its second term is large for few traders, so the overdispersion stands beside it. None for
    fewer than two windows or if all or none bought.
    """
    if len(active) < 2:
        return None
    share = float(buyers.sum() / active.sum())
    if not 0 < share < 1:
        return None
    each = np.array([_herding(int(b), int(n), share) for b, n in zip(buyers, active, strict=True)])
    chi_squared = float(((buyers - active * share) ** 2 / (active * share * (1 - share))).sum())
    degrees = len(active) - 1
    return {
        "mean": float(each.mean()),
        "largest": float(each.max()),
        "dispersion": chi_squared / degrees,
        "p_value": float(stats.chi2.sf(chi_squared, degrees)),
    }


def _herding(buyers: int, active: int, share: float) -> float:
    counts = np.arange(active + 1)
    expected = float((np.abs(counts / active - share) * stats.binom.pmf(counts, active, share)).sum())
    return abs(buyers / active - share) - expected


def homogenisation(failed: Array) -> float | None:
    """Outcome homogenisation: P(all fail) / ∏ P(fails), over repeats. 1: independent; above: they fail together.

    Args: failed: bool[r, n]: in each repeat, whether each of n (vendors, models, participants) failed. None if one
    never did, as then the ratio is not defined.
    """
    alone = failed.mean(axis=0)
    if not len(failed) or not (alone > 0).all():
        return None
    return float(failed.all(axis=1).mean() / alone.prod())


def losses_in_windows(held: Array, lots: Array, paid: Array, mids: Array) -> Array:
    """bool[w, n]: whether each of n lost in each of w windows, marked to mid.

    Args: held: int64[n]: lots at the beginning; lots, paid: int64[w, n]: bought less sold, and what was paid for it in
    ticks × lots; mids: float64[w + 1]: at the windows' edges, in ticks.
    """
    at_start = held + np.cumsum(lots, axis=0) - lots
    gains = at_start * np.diff(mids)[:, None] + lots * mids[1:, None] - paid
    failed: Array = gains < 0
    return failed


def agreement(accounts: Array, causes: Array, actions: Array) -> tuple[Array, sparse.csr_matrix, sparse.csr_matrix]:
    """Pairwise agreement on the same inputs.

    Args: one row a decision: the account, the sequence of the public message that it answered, and what it did (an
    integer: the same number, the same action). A later decision on the same message replaces the one before.
    Returns: the accounts in order; of each pair, on how many messages both acted; and on how many alike.
    """
    names, row = np.unique(accounts, return_inverse=True)
    messages, column = np.unique(causes, return_inverse=True)
    kinds, kind = np.unique(actions, return_inverse=True)
    last = {(int(r), int(c)): int(k) for r, c, k in zip(row, column, kind, strict=True)}
    cells = np.array(list(last), np.int64).reshape(-1, 2)
    done = np.array(list(last.values()), np.int64)
    shape = (len(names), len(messages))
    acted = sparse.csr_matrix((np.ones(len(cells), np.int64), (cells[:, 0], cells[:, 1])), shape)
    alike = sparse.csr_matrix((len(names), len(names)), dtype=np.int64)
    for number in range(len(kinds)):
        chosen = cells[done == number]
        one = sparse.csr_matrix((np.ones(len(chosen), np.int64), (chosen[:, 0], chosen[:, 1])), shape)
        alike = alike + one @ one.T
    return names, (acted @ acted.T).tocsr(), alike.tocsr()


def clusters(common: sparse.csr_matrix, alike: sparse.csr_matrix, at_least: float, fewest: int) -> Array:
    """int64[n]: the number of each one's cluster, whose members agree on average on at least this share of what they
    both answered. A pair with fewer than `fewest` messages in common counts as if it never agreed.

    Average linkage: with single linkage, pairs that agree by chance would chain everyone together.
    """
    if common.shape[0] < 2:
        return np.zeros(common.shape[0], np.int64)
    shared = common.toarray()
    distance = np.where(shared >= fewest, 1 - alike.toarray() / np.maximum(shared, 1), 1.0)
    np.fill_diagonal(distance, 0)
    tree = hierarchy.linkage(squareform(distance, checks=False), "average")
    found: Array = hierarchy.fcluster(tree, 1 - at_least + 1e-12, "distance").astype(np.int64) - 1
    return found


def of_run(run: Run, window_ms: float = 100.0, since_signal: bool = True) -> dict[str, Any]:
    """Everything of one run, of its main instrument.

    Args: window_ms: of herding; since_signal: only what happened from the signal on. Raises: ConfigurationError.
    """
    if window_ms <= 0:
        raise ConfigurationError(f"--window-ms {window_ms}: must be above 0")
    start_ns = _start(run.events, since_signal)
    decisions = run.decisions.filter(
        (pl.col("received_ns") >= start_ns)
        & (pl.col("kind") == int(CommandKind.PLACE_ORDER))
        & (pl.col("instrument") == 0)
    )
    if not len(decisions):
        raise ConfigurationError(f"{run.directory}: nobody sent an order in the part asked for")
    named = _names(run.agents)
    flow = Counter[str]()
    for account, lots in zip(decisions["account"].to_list(), decisions["quantity_lots"].to_list(), strict=True):
        flow[named[account]] += lots
    return {
        "window_ms": window_ms,
        "declared": _concentration(Counter(named.values())),
        "order_flow": _concentration(flow),
        "herding": _herding_of(run.trades.filter(pl.col("time_ns") >= start_ns), start_ns, window_ms),
        "outcomes": _outcomes(run, named, start_ns, window_ms),
        "behaviour": _behaviour(decisions, named),
    }


def _names(agents: pl.DataFrame) -> dict[int, str]:
    """What each account is called: its group, and the vendor whose model it logged on with, if it declared one."""
    rows = agents.select("agent_id", "participants", "vendor").iter_rows()
    return {account: f"{group} of vendor {vendor}" if vendor else group for account, group, vendor in rows}


def _start(events: pl.DataFrame, since_signal: bool) -> int:
    kind = EventKind.SIGNAL_PUBLISHED if since_signal else EventKind.SESSION_OPENED
    found = events.filter(pl.col("kind") == int(kind))["time_ns"]
    return int(found[0]) if len(found) else 0


def _concentration(sizes: Counter[str]) -> dict[str, Any]:
    index = herfindahl(sizes.values())
    return {
        "hhi": None if index is None else round(index, 1),
        "effective_number": None if index is None else round(10_000 / index, 3),
        "highly_concentrated": None if index is None else index > HIGHLY_CONCENTRATED,
        "largest": max(sizes, key=lambda name: sizes[name], default=None),
    }


def _herding_of(trades: pl.DataFrame, start_ns: int, window_ms: float) -> dict[str, float] | None:
    """LSV over windows of time: who bought on balance, of those who traded at all but for the venue's own accounts."""
    window_ns = int(window_ms * MS)
    sides = pl.concat(
        [
            trades.select("time_ns", account="buyer", lots=pl.col("quantity_lots")),
            trades.select("time_ns", account="seller", lots=-pl.col("quantity_lots")),
        ]
    )
    net = (
        sides.with_columns(window=(pl.col("time_ns") - start_ns) // window_ns)
        .group_by("window", "account")
        .agg(pl.col("lots").sum())
        .filter(pl.col("lots") != 0)
        .group_by("window")
        .agg(buyers=(pl.col("lots") > 0).sum(), active=pl.len())
        .filter(pl.col("active") >= _FEWEST_ACTIVE)
        .sort("window")
    )
    found = lsv(net["buyers"].to_numpy().astype(np.int64), net["active"].to_numpy().astype(np.int64))
    return None if found is None else {"windows": len(net), **{key: round(value, 6) for key, value in found.items()}}


def _outcomes(run: Run, named: dict[int, str], start_ns: int, window_ms: float) -> dict[str, Any] | None:
    """Outcome homogenisation of names, a window of time being a repeat and a loss in it a failure.

    names: those that ever lost; all: of all of these; pairs: the mean of that of each two. None without two windows.
    """
    window_ns = int(window_ms * MS)
    times_ns, quoted = two_sided_mids(run.book)
    windows = (int(times_ns[-1]) - start_ns) // window_ns if len(times_ns) else 0
    if windows < 2:
        return None
    edges = start_ns + window_ns * np.arange(windows + 1)
    mids = quoted[np.maximum(np.searchsorted(times_ns, edges, "right") - 1, 0)]
    kinds = sorted(set(named.values()))
    number = {account: kinds.index(name) for account, name in named.items()}
    held = np.zeros(len(kinds), np.int64)
    groups = run.manifest["scenario"]["participants"]
    for account, group in run.agents.select("agent_id", "participants").iter_rows():
        held[number[account]] += groups[group]["shares"]
    lots, paid = np.zeros((2, windows, len(kinds)), np.int64)
    trades = run.trades.filter((pl.col("instrument") == 0) & (pl.col("time_ns") < edges[-1]))
    columns = ("time_ns", "buyer", "seller", "quantity_lots", "price_ticks")
    for time_ns, buyer, seller, quantity, price in trades.select(columns).iter_rows():
        for account, signed in ((buyer, quantity), (seller, -quantity)):
            if account not in number:
                continue  # the venue's own
            if time_ns < start_ns:
                held[number[account]] += signed
            else:
                window = (time_ns - start_ns) // window_ns
                lots[window, number[account]] += signed
                paid[window, number[account]] += signed * price
    failed = losses_in_windows(held, lots, paid, mids)
    failed = failed[:, failed.any(axis=0)]
    pairs = [homogenisation(failed[:, [one, other]]) for one, other in combinations(range(failed.shape[1]), 2)]
    known = [pair for pair in pairs if pair is not None]
    return {
        "windows": windows,
        "names": failed.shape[1],
        "all": _rounded(homogenisation(failed) if failed.shape[1] > 1 else None),
        "pairs": _rounded(sum(known) / len(known) if known else None),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _behaviour(decisions: pl.DataFrame, named: dict[int, str]) -> dict[str, Any]:
    """Who answers alike. An answer is a side and an order type; a message counts if two answered it.

    mean_agreement: over pairs. effective_number: of clusters. by_name: agreement within each name. clones: clusters
    with more than one name in them. one_model: pairs of names who agree with each other as much as each with itself.
    """
    answers = decisions.filter(pl.col("cause_sequence") > 0)
    shared = answers.group_by("cause_sequence").agg(pl.col("account").n_unique().alias("who")).filter(pl.col("who") > 1)
    answers = answers.join(shared, on="cause_sequence", how="semi").sort("sequence")
    if not len(answers):
        nothing: dict[str, Any] = {"compared": 0, "mean_agreement": None, "effective_number": None}
        return nothing | {"by_name": [], "one_model": [], "clones": []}
    accounts, common, alike = agreement(
        answers["account"].to_numpy(),
        answers["cause_sequence"].to_numpy(),
        (answers["side"] * 16 + answers["order_type"]).to_numpy(),
    )
    pairs = sparse.triu(common, 1).tocoo()
    enough = pairs.data >= _FEWEST_COMMON
    agreed = np.asarray(alike[pairs.row, pairs.col]).ravel()
    cluster = clusters(common, alike, _ALIKE, _FEWEST_COMMON)
    sizes = np.bincount(cluster)
    names = [named[int(account)] for account in accounts]
    clones = []
    for number in np.argsort(-sizes):
        members = Counter(name for name, its in zip(names, cluster, strict=True) if its == number)
        if len(members) > 1:
            clones.append({"participants": int(sizes[number]), "names": dict(members.most_common())})
    return {
        "compared": int(enough.sum()),
        "mean_agreement": round(float((agreed[enough] / pairs.data[enough]).mean()), 4) if enough.any() else None,
        "effective_number": round(float(effective_number(sizes.tolist()) or 0), 3),
        **_between_names(names, common.toarray(), alike.toarray()),
        "clones": clones[:_SHOWN],
    }


def _between_names(names: list[str], common: Array, alike: Array) -> dict[str, Any]:
    """Agreement within and between names, over all pairs of different participants and all that both answered."""
    kinds = sorted(set(names))
    member = np.array([[name == kind for name in names] for kind in kinds], float)
    off_diagonal = 1 - np.eye(len(names))
    answered = member @ (common * off_diagonal) @ member.T
    agreed = member @ (alike * off_diagonal) @ member.T
    share = np.divide(agreed, answered, where=answered > 0, out=np.zeros_like(answered))
    known = [number for number in range(len(kinds)) if answered[number, number] >= _FEWEST_ANSWERS]
    same = [
        {"names": [kinds[one], kinds[other]], "agreement": round(float(share[one, other]), 4)}
        for one in known
        for other in known
        if one < other
        and answered[one, other] >= _FEWEST_ANSWERS
        and share[one, other] >= max(share[one, one], share[other, other]) - _SAME
    ]
    same.sort(key=lambda pair: -float(str(pair["agreement"])))
    return {
        "by_name": [{"name": kinds[one], "agreement": round(float(share[one, one]), 4)} for one in known],
        "one_model": same[:_SHOWN],
    }
