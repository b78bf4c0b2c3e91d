"""Preloaded into a zygote: its third fork fails."""

from tests.dummy_agent import spoil_third_fork

spoil_third_fork()
