"""What a derivation takes and how it goes about it; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from patchc.derivation.derive_options import Optimizer


@dataclass(frozen=True)
class DerivePlan:
    """How a derivation will be done.

    Attributes:
        streams: whether weights, moments and gradients lie in scratch files; otherwise in memory.
        recomputes: whether each layer is computed twice, so that little is kept for its gradients.
        optimizer: the chosen one.
        device: "cpu" or "cuda".
        memory_bytes: peak of the process's memory.
        device_bytes: peak of the memory on the device; 0 on the CPU.
        scratch_bytes: most bytes of scratch files.
        output_bytes: most bytes of tensors that are written.
        step_bytes: bytes that a step reads from files and writes to them; 0 in memory.
        step_seconds, score_seconds: estimates for a step and for the scoring of one direction, from
            a layer that was measured; None unless only the plan was asked for.
    """

    streams: bool
    recomputes: bool
    optimizer: Optimizer
    device: str
    memory_bytes: int
    device_bytes: int
    scratch_bytes: int
    output_bytes: int
    step_bytes: int
    step_seconds: float | None = None
    score_seconds: float | None = None
