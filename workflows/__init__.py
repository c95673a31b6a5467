"""Workflows: deterministic orchestration only. The work is done in `activities` and `syncline`."""
