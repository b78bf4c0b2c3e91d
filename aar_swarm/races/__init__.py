"""Latency races in a run's own message stream: who raced whom for what, who won, and what it cost.

Definitions of Aquilina, Budish and O'Neill, Quantifying the High-Frequency Trading "Arms Race" (QJE 137(1), 2022), with
the sensitivities of their code appendix. docs/races.md.
"""
