"""The ARI family's work: summaries and trends of a user's autonomy, on stored snapshots."""

from workers.families.ari.aggregation import aggregate_snapshots
from workers.families.ari.analysis import analyze_trends
from workers.families.ari.survey import analyze_active_users

__all__ = ["aggregate_snapshots", "analyze_active_users", "analyze_trends"]
