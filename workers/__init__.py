"""The engine room: processes that claim jobs from Redis, run them, and settle them in SQL.

May import everything of ``app`` below the API; nothing of ``app`` imports this package.
"""
