"""Whether everything that a worker stands on is well: each check alone, bounded, and with its fix.

Here is what a check says. `syncline.health.examination` makes them, which takes all that a worker has.
"""
