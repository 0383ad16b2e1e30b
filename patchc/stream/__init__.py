"""Bounded memory, many threads: chunks flow from read through compute to write, in order."""

from patchc.stream.grid import Chunk, grid
from patchc.stream.workers import Workers, scratch

__all__ = ["Chunk", "Workers", "grid", "scratch"]
