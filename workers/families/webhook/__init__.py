"""The webhook family's work."""

from workers.families.webhook.delivery import deliver_event

__all__ = ["deliver_event"]
