"""The EDM family's work: epistemic debts and fact-checked claims, in stored interactions."""

from workers.families.edm.analysis import batch_analysis
from workers.families.edm.misinformation import detect_misinformation
from workers.families.edm.resolutions import track_resolutions

__all__ = ["batch_analysis", "detect_misinformation", "track_resolutions"]
