"""Chaos: real processes under kills, stops and cut links, and a checker of the history that they leave.

``python -m tests.chaos`` runs the scenarios; the acceptance tests run short forms of the same functions.
"""
