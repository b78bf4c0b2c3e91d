"""The venue: a deterministic matching engine with an in-line breaker, its journal, and its event loop.

Owns everything that decides who was first and at what price. Knows nothing of Ray, of agents or of scenarios.
"""
