"""Health checks of everything that a worker depends on, each isolated, bounded in time, and with its fix.

`check` defines their messages; `examine` runs them, which needs all services of a worker.
"""
