"""Benchmarks. Each prints ratios against peers and limits that ran in the same minute on the same machine."""
