"""The parameters of an evaluation, validated; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from patchc.errors import UsageError
from patchc.evaluation.verdicts import Judge
from patchc.json_values import has_half_character
from patchc.recipe import checks
from patchc.runtime.device import device_name

if TYPE_CHECKING:
    import torch

Dtype = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class EvaluateOptions:
    """How models are asked and their replies judged.

    Attributes:
        judge: says what a reply is: "phrases" (a list of refusal phrases), "hf:MODEL" or
            "hf:MODEL=LABEL" (a sequence classifier's folder or hub id), or a function, itself or as
            "module:function". It takes ``(prompts, replies)`` and returns a list with one entry per
            reply: True (refused), False (answered), or "refused", "answered" or "misanswered".
        max_new_tokens: longest reply.
        batch_size: requests generated together.
        dtype: of the computation; "auto" is the one that most of the weights are stored in.
        system: a system message for requests that have none; None adds nothing.
        limit: how many requests of each set are taken, from the first one; None takes all.
        device: "cpu", "cuda", "cuda:1", or a ``torch.device``, which is kept as its name; "auto"
            takes CUDA if there is a device.
        lm_eval: tasks of lm-evaluation-harness to run as well, by name or ``.yaml`` file.

    Raises:
        UsageError: a parameter is of the wrong type or out of range.
    """

    judge: str | Judge = "phrases"
    max_new_tokens: int = 32
    batch_size: int = 64
    dtype: Dtype = "auto"
    system: str | None = None
    limit: int | None = None
    device: str | torch.device = "auto"
    lm_eval: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.count("max_new_tokens", self.max_new_tokens)
        checks.count("batch_size", self.batch_size)
        if self.limit is not None:
            checks.count("limit", self.limit)
        checks.choice("dtype", self.dtype, get_args(Dtype))
        object.__setattr__(self, "device", device_name(self.device))
        if self.system is not None:
            if not isinstance(self.system, str) or not self.system.strip():
                raise UsageError(f"system is {self.system!r:.80}; it must be a text, not empty")
            if has_half_character(self.system):
                raise UsageError("system holds half a character (a lone surrogate)")
        if not callable(self.judge) and not isinstance(self.judge, str):
            raise UsageError(f"judge is {self.judge!r:.80}; it must be a name or a callable")

    @property
    def judge_name(self) -> str:
        """The judge as text; a function by its module and name."""
        if isinstance(self.judge, str):
            return self.judge
        owner = self.judge if hasattr(self.judge, "__qualname__") else type(self.judge)
        return f"{owner.__module__}:{owner.__qualname__}"
