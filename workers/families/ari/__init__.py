"""The ARI family's work: summaries and trends of a user's autonomy, on stored snapshots."""

from workers.families.ari.aggregation import aggregate_snapshots
from workers.families.ari.analysis import analyze_trends

__all__ = ["aggregate_snapshots", "analyze_trends"]
