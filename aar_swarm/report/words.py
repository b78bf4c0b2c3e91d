"""The fixed words of the page: how to read each plot, and the glossary.

Owns text that is the same in every report. What one run's figures say is in `story`. The glossary says in plain words
what `aar_swarm.analysis.measures` computes; that module's definitions are the ones that hold.
"""

HOW_FIGURES = (
    "Every plot below opens on the same scales in every column and moves together with its neighbours. Drag across "
    "a plot to enlarge that stretch of time; the tools that appear above it pan, zoom, reset and save; hover to read "
    "values; a click on a legend entry hides it."
)
HOW_PRICE = (
    "Each dot is a trade; the lines are the best bid (solid) and the best ask (dashed). The dashed vertical line is "
    "the signal that every agent hears, the solid one the moment the breaker tripped (shaded from there if nothing "
    "traded any more); the triangle marks the trough. A gap in a line is a side of the book without any order; a line "
    "ends with the last update."
)
HOW_DEPTH = (
    "How much could be sold (bid) or bought (ask) at once within 1 % of the middle price. Where the bid depth goes to "
    "nothing, the next seller moves the price, however small the order. Moves together with the price plot above."
)
HOW_LOAD = (
    "Orders, and cancels of orders, that reached the venue in each millisecond (blue), in front of the trades that "
    "were made in it (grey), and the rejects (line). One order can make many trades. Once a market is halted, whatever "
    "reaches it is rejected."
)
HOW_ZOOM = (
    "The same event from the signal on, enlarged: price above, orders below. Read down: the height of "
    "the lower plot is the crowd at the door, the upper plot what it did to the price."
)
HOW_LOSSES = (
    "What each class of participants lost (to the right) or gained (to the left, hatched). Compare the bars with the "
    "lots sold and bought below them: who did not get out still holds, and is valued at the last middle price. Where "
    "everyone is listed, lots sold and bought add up to the same."
)
HOW_LIQUIDATIONS = (
    "Liquidations in each millisecond: margin accounts that the venue began to liquidate, and loans that a "
    "liquidator's message closed. Of several repeats the mean is drawn."
)
HOW_COIN = "Every trade of the stablecoin as a share of what the issuer redeems it for (par)."
HOW_LOSERS = (
    "What each part of the participants lost (to the right) or gained (to the left): net worth just before the signal "
    "less net worth before the close. Leverage is value over equity at the beginning, 0 a cash account. Speed is the "
    "order in which each one's first command after the signal arrived. Black lines are confidence intervals of the "
    "mean, where a setting has several runs."
)
HOW_CURVES = (
    "Each panel is one measure. Points are means over the runs of a setting, bars their 95 % confidence intervals, "
    "faint dots the single runs. Below each panel it is said whether the curve of means is monotone, and if it is not, "
    "whether the step back is within the intervals, so that it may be chance."
)
HOW_PANELS = (
    "Each panel is one measure. Points are means over the runs of a setting, bars their 95 % confidence intervals, "
    "faint dots the single runs."
)
HOW_PATHS = (
    "The trades' price in every run: a faint line each, and their median in black where there are several. The dashed "
    "line is the signal that every agent hears, the solid one the halt (the median moment of the runs that were "
    "halted). All columns have the same scales and move together."
)
HOW_FIRST = "The same prices, enlarged from the signal on."
HOW_ORDERS = "Orders and cancels that reached the venue in each millisecond; of several runs the mean."
HOW_BID_DEPTH = (
    "How much could be sold at once within 1 % of the middle price, in every run, with the median in black. Where it "
    "goes to nothing, the next seller moves the price, however small the order."
)
HOW_COMPARED = (
    "Means over the runs of a setting, with their 95 % confidence intervals (Student's t), and in how many of the runs "
    "a measure applies, where that is not all of them. Measures that apply to no run are left out."
)
HOW_RUNS = "Each run has a report of its own, in the directory beside this page."
COMPARED = (
    "The runs were made one after the other, the first repeat of every setting before the second of any, so that a "
    "machine that slowly changes changes for all alike. Intervals cover what differs from run to run (seed and race), "
    "not what the model leaves out."
)
DECIMATED = "of every pixel's worth the first, last, smallest and largest, so no extreme is hidden"

_AAR = """
Realised cost of the exit of all, over the modelled cost of the best coordinated exit of the same positions. 4 × means
that the crowd paid four times what one planner would have paid by that model. Below 1 × one of two things happened:
much of the exit did not take place, as in a halt (compare the lots sold with the lots planned), or a small crowd sold
before the market had taken in the news, which the model counts in full.
"""
_ILLUSION = """
Realised cost over what the agents' own plans expected. Far above 1 ×, each agent's plan was sound only as long as the
others did not make the same one.
"""
_EXIT_COST = """
What everyone who planned to leave got less than the middle price before the signal; what could not be sold counts at
the last middle price. Beside it, what one planner would have paid for the same lots, by a model of the book as it stood
before the signal, and what the agents expected, each alone. All three contain the news.
"""
_DRAWDOWN = """
From the middle price just before the signal down to the lowest trade after it, in basis points (1 bp = 0.01 %).
"""
_LOSS = """
What cash and holdings were worth just before the signal, less what they were worth before the close, both at the
middle price of that moment; in currency. Positive is lost, negative is gained. What is still held is valued, not sold.
"""
_TRIP = """
The breaker's threshold was reached: the match that would have reached it did not happen, and the market halted. Orders
that come later are rejected.
"""
_DEPTH = """
Lots that rest at prices no further than 1 % from the middle of best bid and best ask: what can be traded at once
without moving the price more than that.
"""
_QUANTILES = """
Of 100 orders, 50 took no longer than p50 and 99 no longer than p99; of 1,000, 999 no longer than p99.9. Between
hosts of several kernels, transit and notice are as good as their clocks agree.
"""
_ORDERED = """
Whose order of arrival the stampede's is. Each agent's way from the signal to its arrival is the links' nominal delays,
its waits for a core, its computing, and a rest. That part ordered the stampede without which most pairs of agents would
have arrived the other way round: the scheduler's waits, the network's delays, one of them with another (mixed), or
neither.
"""
_EARLY = """
Of those with a plan, ranked by the arrival of their first command after the signal: what the last quarter's exit cost
more than the first quarter's, in basis points of the value they planned to sell. Above 0, being late was dear.
"""
_LIQUIDATION = """
Of a margin account whose equity fell below its maintenance margin: the venue takes over its orders and sells what it
holds. Of a loan whose health factor fell below 1: a liquidator repays a part and takes collateral with a bonus; many
try, the first one gets it.
"""
_BAD_DEBT = """
What was owed and nobody could pay: deficits beyond the insurance fund, and debt that no collateral is left for.
"""

GLOSSARY = tuple(
    (name, term, " ".join(meaning.split()))
    for name, term, meaning in (
        ("aar-ratio", "AAR ratio", _AAR),
        ("illusion-ratio", "Illusion ratio", _ILLUSION),
        ("exit-cost", "Cost of the exit", _EXIT_COST),
        ("loss", "Loss", _LOSS),
        ("drawdown", "Drawdown", _DRAWDOWN),
        ("trough", "Trough", "The lowest trade after the signal, and when it was made."),
        ("exhausted", "Bids exhausted", "The bid depth is first below a tenth of what it was at the signal."),
        ("depth", "Depth within 1 % of the mid", _DEPTH),
        ("trip", "Trip", _TRIP),
        ("recovered", "Recovered", "From the lowest trade after the signal up to the middle price before the close."),
        ("ordered", "Ordered by", _ORDERED),
        ("early", "Price of being early", _EARLY),
        ("liquidation", "Liquidation", _LIQUIDATION),
        ("bad-debt", "Bad debt", _BAD_DEBT),
        ("coin", "Stablecoin's low", "Its lowest trade after the signal, over what the issuer redeems it for (par)."),
        ("quantiles", "p50 / p99 / p99.9 / max", _QUANTILES),
        ("state-hash", "State hash", "A fingerprint of the market's final state; a replay must arrive at the same."),
        ("null", "–", "Does not apply to this run, or was not measured. It never stands for zero."),
    )
)
"""Anchor, term, meaning."""
