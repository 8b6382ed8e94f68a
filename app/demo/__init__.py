"""``python -m app demo``: the whole service on sample data, on this machine, for as long as one looks at it.

Starts what it shows as processes and talks to it over HTTP, like any client; imported by the CLI and tests alone.
"""
