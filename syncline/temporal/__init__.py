"""Temporal client side: connection, data converter, runs, Schedules, task queues and stalled runs."""
