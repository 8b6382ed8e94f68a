"""The system family's work: trying the service out, and watching over it."""

from workers.families.system.health import health_check
from workers.families.system.metrics import daily_metrics
from workers.families.system.monitor import monitor_queues
from workers.families.system.trial import echo, flaky

__all__ = ["daily_metrics", "echo", "flaky", "health_check", "monitor_queues"]
