"""Applies a patch to a model: recognises each chunk, takes it across, checks and writes it."""
