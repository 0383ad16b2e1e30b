"""The arithmetic of patchc: each module holds one kernel and the plain oracle that defines it.

Kernels know arrays, never files. The oracles are NumPy and short; tests compare bit for bit.
"""
