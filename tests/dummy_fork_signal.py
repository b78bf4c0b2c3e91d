"""Preloaded into a zygote: its agents get SIGTERM at birth."""

from tests.dummy_agent import signal_newborns

signal_newborns()
