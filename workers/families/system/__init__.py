"""The system family's work: trying the service out, watching over it, and changing many tasks at once."""

from workers.families.system.bulk import change_many
from workers.families.system.health import health_check
from workers.families.system.metrics import daily_metrics
from workers.families.system.monitor import monitor_queues
from workers.families.system.trial import echo, flaky

__all__ = ["change_many", "daily_metrics", "echo", "flaky", "health_check", "monitor_queues"]
