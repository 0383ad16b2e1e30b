"""The arithmetic of patchc on arrays and tensors; it knows no files.

One folder holds one operation. In it ``reference`` is the plain definition, which the tests compare
with bit for bit; ``cpu`` has the compiled loops; ``triton`` the code for a device; and the package
itself its types and, where there is one, the function on torch tensors that runs one or the other
(``docs/explanation/design/device-kernels.md``).

====================== ============================================================================
``rounding``           small floats to fp32 and back
``ulp_steps``          steps between words: taken, added, composed
``philox``             retention: random draws by flat index
``snip``               accumulation of SNIP scores
``topk``               top sets of scores
``safepatching_merge`` the merge of components at selected entries
``task_merge``         the merge of task vectors, with and without election
``additive_merge``     deltas of an additive patch, added and taken back
====================== ============================================================================

Beside them: ``bitmask`` (sets of entries), ``tiles`` (what the merges compute on), ``histograms``
(counts that the codecs choose by), ``delta_values`` (deltas as an additive patch stores them) and
``launch`` (what all launches share).
"""
