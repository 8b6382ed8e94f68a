"""Alembic migrations: expand first, contract a release later, so that old and new processes can run together."""
