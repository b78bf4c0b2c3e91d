"""How far the venue's book was the recorded exchange's own, while nobody but the recording traded."""

import numpy as np

from aar_swarm import lobster
from exchange.state import Array
from exchange.types import ORDER_COMMANDS


def lobster_agreement(file: str, commands: Array, tops: Array, account: int, until_sequence: int) -> dict[str, object]:
    """Compare the top of the book with the recording's after each of its rows, before `until_sequence`.

    Args: commands: COMMAND[n]; tops: analysis.tables.TOP[n]; account: the recording's; until_sequence: the crowd's
    first command.
    Returns: rows_replayed in all and before the crowd, rows_compared, and the shares of them whose best bid and ask
    (price and size) are the exchange's own. A share is None where nothing was compared.
    """
    day = lobster.read(file)
    flow = lobster.order_flow(day)
    mine = np.flatnonzero((commands["account"] == account) & np.isin(commands["kind"], ORDER_COMMANDS))
    flow = flow[: len(mine)]  # the account's n-th command is the flow's n-th action: one session keeps its order
    mine = mine[: len(flow)]
    before = commands["sequence"][mine] < until_sequence
    compared = before & (flow["last"] == 1)
    rows = flow["row"][compared]
    books = lobster.books_in_ticks(day)[rows][:, :, 0, :]  # best level: rows × side × (price, quantity)
    ours = tops[mine[compared]]
    bid = (books[:, 0, 0] == ours["bid_ticks"]) & (books[:, 0, 1] == ours["bid_lots"])
    ask = (books[:, 1, 0] == ours["ask_ticks"]) & (books[:, 1, 1] == ours["ask_lots"])

    def rows_in(part: Array) -> int:
        return int(part["row"].max(initial=-1)) + 1

    return {
        "file": day.message_name.rpartition("/")[2],
        "rows": len(day.messages),
        "rows_replayed": rows_in(flow),
        "rows_before_crowd": rows_in(flow[before]),
        "rows_compared": len(rows),
        "best_bid_agrees": float(bid.mean()) if len(rows) else None,
        "best_ask_agrees": float(ask.mean()) if len(rows) else None,
    }
