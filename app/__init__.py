"""The front of the house: what a job is, where it is stored, how it is offered, and the HTTP API.

The worker package builds on this one; nothing in here imports it.
"""
