"""Bounded memory, many threads: chunks flow from read through compute to write, in order."""

from patchc.stream.grid import Chunk, grid, pieces
from patchc.stream.workers import Workers

__all__ = ["Chunk", "Workers", "grid", "pieces"]
