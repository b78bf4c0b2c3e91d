"""What a finished run looks like: one HTML page (`page`) and one terminal table (`table`), from the same figures.

Owns presentation only. Must not compute what a run means (that is `aar_swarm.analysis`), read a run directory, or load
anything from the network: a report opens offline, years later.
"""
