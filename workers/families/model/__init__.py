"""The model family's work: training, judging and benchmarking, each computed in a process of its own."""

from workers.families.model.benchmarking import benchmark
from workers.families.model.evaluation import evaluate
from workers.families.model.finetuning import finetune

__all__ = ["benchmark", "evaluate", "finetune"]
