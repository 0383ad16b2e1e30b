"""Compact components: files of the retained entries alone, read as whole tensors."""
