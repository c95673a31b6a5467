"""Temporal Schedules: one per graph, and one that reconciles them with the graph records."""
