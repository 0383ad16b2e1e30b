"""Bounded memory, many threads: chunks flow from read through compute to write, in order."""

from patchc.scratch import scratch
from patchc.stream.grid import Chunk, grid
from patchc.stream.workers import Workers

__all__ = ["Chunk", "Workers", "grid", "scratch"]
