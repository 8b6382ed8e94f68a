"""Redis for jobs: the doorbell. Everything in it can be rebuilt from SQL.

The keys are arq's own where arq has one, so that arq's client and tools keep working.
"""
