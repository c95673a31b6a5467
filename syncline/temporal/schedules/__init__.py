"""Desired graphs <-> Temporal Schedules: one Schedule per graph, and one that keeps all of those in step."""
