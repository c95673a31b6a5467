"""Freshness: hearing of changes in the write-dbs, and having their graphs' runs started at once.

One worker of the fleet listens to a write-db at a time. Schedules do their work in any case; who listens only
makes it sooner.
"""
