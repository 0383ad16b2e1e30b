"""The arithmetic of patchc: each module holds one kernel and the plain oracle that defines it.

Kernels know arrays and tensors, never files. Those on tensors, and their device code in ``device``,
are described in ``docs/design/device-kernels.md``. The oracles are NumPy and short; tests compare
bit for bit.
"""
