"""The maintenance family's work: archives, database upkeep, cache and retention."""

from workers.families.maintenance.archiving import archive_audit_logs
from workers.families.maintenance.cache import cleanup_cache
from workers.families.maintenance.database import maintain_database
from workers.families.maintenance.retention import enforce_retention_policy

__all__ = ["archive_audit_logs", "cleanup_cache", "enforce_retention_policy", "maintain_database"]
