"""Gradients taken as soon as they are complete, so that one is held at a time."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.utils.hooks import RemovableHandle


def on_gradient(tensor: Tensor, action: Callable[[Tensor], None]) -> RemovableHandle:
    """Call ``action`` with a leaf tensor whenever its gradient has been accumulated."""
    handle: RemovableHandle = tensor.register_post_accumulate_grad_hook(action)  # type: ignore[no-untyped-call]
    return handle
