"""Tests. Oracles and generators of work are modules here too; they never import what they are compared with."""
