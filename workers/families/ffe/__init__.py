"""The FFE family's work: plans of goals and their progress, on stored goals and blocks."""

from workers.families.ffe.planning import plan_goal
from workers.families.ffe.tracking import track_progress

__all__ = ["plan_goal", "track_progress"]
