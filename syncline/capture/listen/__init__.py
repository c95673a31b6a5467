"""Listeners: receive notifications of changes in the write-dbs and start the graphs' runs at once.

One worker of the fleet listens to a write-db at a time. Schedules run in any case; a listener only makes runs
start sooner.
"""
