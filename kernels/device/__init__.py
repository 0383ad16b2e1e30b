"""Device code: Triton kernels alone, one idea a file; the modules above launch them.

Imported only once a tensor on a device comes in, because it imports triton. Every kernel is
launched with :data:`patchc.kernels.launch.OPTIONS`, which forbid contraction.
"""
