"""Changes a loaded torch model in place, or streams a patched one to a loader.

:func:`apply_` and :func:`revert_` change the parameters of a module or a state dict on their
devices. :func:`prepare` does everything but the change, which the methods of the same names do
later, in a moment. :func:`patched_tensors` yields (name, tensor) from a base on disk, and
:func:`sparse_updates` only what changes, as positions and values.
:class:`Slice` says which rows of the base a fused or sharded parameter holds, and
:func:`mapping_for` finds that for the models of transformers and vLLM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from patchc.errors import MissingExtraError

if TYPE_CHECKING:
    from patchc.torch.hot_patch import HotPatchReport, PreparedPatch, apply_, prepare, revert_
    from patchc.torch.mapping import mapping_for
    from patchc.torch.slices import Slice
    from patchc.torch.sparse import SparseUpdate, sparse_updates
    from patchc.torch.stream import patched_tensors

_HOMES = {
    "HotPatchReport": "patchc.torch.hot_patch",
    "PreparedPatch": "patchc.torch.hot_patch",
    "Slice": "patchc.torch.slices",
    "SparseUpdate": "patchc.torch.sparse",
    "apply_": "patchc.torch.hot_patch",
    "mapping_for": "patchc.torch.mapping",
    "patched_tensors": "patchc.torch.stream",
    "prepare": "patchc.torch.hot_patch",
    "revert_": "patchc.torch.hot_patch",
    "sparse_updates": "patchc.torch.sparse",
}

__all__ = [
    "HotPatchReport",
    "PreparedPatch",
    "Slice",
    "SparseUpdate",
    "apply_",
    "mapping_for",
    "patched_tensors",
    "prepare",
    "revert_",
    "sparse_updates",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'patchc.torch' has no attribute {name!r}")
    try:
        home = import_module(_HOMES[name])
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from patchc.extras import install_command

        raise MissingExtraError(
            f"patchc.torch.{name} needs torch; install it with `{install_command('gpu')}`"
        ) from error
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
