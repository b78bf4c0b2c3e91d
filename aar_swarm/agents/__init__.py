"""Strategies: one a file, each a decision rule without sockets, clocks or shared state. See base.Strategy."""
