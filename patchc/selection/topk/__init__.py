"""Exact top-k over streamed scores."""
