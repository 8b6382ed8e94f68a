"""The HTTP front of the house. ``server`` is its composition root; nothing below it imports it.

The HTTP contract calls a job a *task*: ``schemas`` translates, and no other module of the service does.
"""
