"""Merges of task vectors: task arithmetic, DARE, magnitude pruning, TIES."""
