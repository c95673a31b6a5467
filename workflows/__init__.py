"""Orchestration: deterministic, and nothing else. The work is in `activities` and `syncline`."""
