"""Gradients of chosen tensors, each used and released as soon as it is complete.

Only one gradient is in memory at a time, instead of one for every parameter of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import Parameter


@contextmanager
def train_only(
    model: Any,
    tensors: Mapping[str, Parameter],
    take: Callable[[str, Parameter], None] | None = None,
) -> Iterator[None]:
    """Let only these parameters of a model have gradients, and restore all on leaving.

    ``take`` is called with a name and its parameter whenever the parameter's gradient is complete.
    """
    chosen = {id(tensor) for tensor in tensors.values()}
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in chosen)
    hooks = [
        tensor.register_post_accumulate_grad_hook(partial(take, name))  # type: ignore[no-untyped-call]
        for name, tensor in tensors.items()
        if take
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, required in before:
            parameter.requires_grad_(required)


def pop_gradient(parameter: Parameter) -> Tensor:
    """Take a parameter's gradient from it."""
    gradient = parameter.grad
    assert gradient is not None
    parameter.grad = None
    return gradient
