"""Hot patches: change a loaded model's parameters exactly, in place, on their devices."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch

from patchc.errors import AlreadyPatchedError, NotPatchedError, UsageError
from patchc.formats import open_patch
from patchc.hub_models import takes_models
from patchc.kernels.ulp_steps import Launch, StepRun, launches
from patchc.patching.model_of_patch import open_for_patch
from patchc.progress import Progress, ignore_progress
from patchc.runtime.runtime import Runtime
from patchc.sides import OTHER, Side
from patchc.signing.trust import ANYBODY, PolicyAnswer, Trust, demand_trust
from patchc.torch.live_model import LiveModel
from patchc.torch.memory_layout import Run, lay_out
from patchc.torch.preparation import Preparation, refuse_features
from patchc.torch.slices import Slice
from patchc.torch.tensors import Live, check_model

_WRITING = threading.Lock()
"""Held from the last check of a model until all is written: by one thread of the process."""


@dataclass(frozen=True)
class HotPatchReport:
    """What a patch changes in a live model.

    Attributes:
        root: the patch's root digest, in hexadecimal.
        parameters: names of the parameters that change, sorted.
        changed_words: words that change.
        nbytes: memory of the prepared changes on the parameters' devices.
        launches: number of kernels that write them.
        policies: the policies that the patch satisfies.
    """

    root: str
    parameters: tuple[str, ...]
    changed_words: int
    nbytes: int
    launches: int
    policies: tuple[PolicyAnswer, ...] = ()


class PreparedPatch:
    """A patch whose changes lie ready on the devices of the parameters.

    :meth:`apply_` and :meth:`revert_` only write: a few short launches, for which they wait. Work
    queued on the current CUDA stream is finished first; nothing else may use the parameters
    meanwhile. Pointers do not change, so captured CUDA graphs stay valid. An interrupt waits until
    everything is written. If a launch cannot start, those before it are taken back. A fault of the
    device itself leaves the parameters undefined. Threads write one after the other, and what they
    prepared for the same words is refused once another one has written.

    Attributes:
        report: what it changes.
        applied: whether the model holds the patch; None if nothing has told that yet, as with
            ``verify=False``.
    """

    def __init__(
        self,
        preparation: Preparation,
        steps: Mapping[Run, StepRun],
        policies: tuple[PolicyAnswer, ...],
    ) -> None:
        runs = list(steps.values())
        self._live = preparation.live
        self._launches = launches(runs)
        self._side = preparation.side
        self._path = preparation.patch.path
        self._changed = {run.parameter for run in steps}
        self.report = HotPatchReport(
            preparation.patch.root.hex(),
            tuple(sorted(self._changed)),
            sum(run.positions.numel() for run in runs),
            sum(t.numel() * t.element_size() for run in runs for t in (run.positions, run.steps)),
            len(self._launches),
            policies,
        )
        self._live.synchronize()

    @property
    def applied(self) -> bool | None:
        """Whether the model holds the patch; None if nothing has told that yet."""
        return None if self._side is None else self._side == "result"

    def apply_(self) -> None:
        """Take the model from the base to the result, bit for bit.

        Raises:
            AlreadyPatchedError: the model holds the patch already.
            UsageError: a parameter was moved, replaced or written to since.
        """
        with _WRITING:
            if self._side == "result":
                raise AlreadyPatchedError(
                    f"{self._live.path} already holds {self._path}; there is nothing to apply"
                )
            self._write("result")

    def revert_(self) -> None:
        """Take the model from the result to the base, bit for bit.

        Raises:
            NotPatchedError: the model does not hold the patch.
            UsageError: a parameter was moved, replaced or written to since.
        """
        with _WRITING:
            if self._side == "base":
                raise NotPatchedError(
                    f"{self._live.path} does not hold {self._path}; there is nothing to revert"
                )
            self._write("base")

    def _write(self, target: Side) -> None:
        self._live.check_untouched()
        streams = {d: torch.cuda.current_stream(d) for d in self._live.devices}
        with ThreadPoolExecutor(1, thread_name_prefix="patchc") as thread:
            # The pool does not wait for a thread whose start was interrupted; start it first.
            thread.submit(int).result()
            thread.submit(self._scatter, target, streams).result()

    def _scatter(self, target: Side, streams: Mapping[torch.device, torch.cuda.Stream]) -> None:
        """Launch all changes; runs in a thread of its own, which an interrupt cannot stop."""
        done: list[Launch] = []
        try:
            for launch in self._launches:
                _run(launch, streams, target)
                done.append(launch)
        except Exception:
            for launch in done:
                _run(launch, streams, OTHER[target])
            raise
        finally:
            self._live.count_writes(self._changed)
        self._side = target
        for stream in streams.values():
            stream.synchronize()


def _run(launch: Launch, streams: Mapping[torch.device, torch.cuda.Stream], target: Side) -> None:
    stream = streams.get(launch.device)
    with torch.cuda.stream(stream) if stream else nullcontext():
        launch.add(target)


@takes_models("base")
def prepare(
    model: Live,
    patch: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    mapping: Mapping[str, Sequence[Slice]] | None = None,
    shard: bool = False,
    verify: bool = True,
    threads: int | None = None,
    trust: Trust = ANYBODY,
    progress: Progress = ignore_progress,
) -> PreparedPatch:
    """Check a loaded model against a patch, decode the changes and lay them on its devices.

    For a short pause: everything that takes time or can be refused is done here, and the model is
    not changed. :meth:`PreparedPatch.apply_` and :meth:`PreparedPatch.revert_` then only write.
    They refuse a model that was written to since, if torch counted the writes: not those under
    ``.data``, nor those to tensors made in inference mode, unless a patch did them.

    Every word of the model is copied to the CPU once, chunk by chunk. Its digests are compared with
    those in the patch, or with ``base`` word by word. The outcome of every change is computed and
    checked. The prepared changes take about 5 bytes per changed word on the device, and a few
    chunks per thread on the CPU.

    Args:
        model: a module, or a mapping of names to tensors that share its memory (a state dict), at
            the patch's base or its result. Tied parameters are changed once. Buffers that the base
            does not have are ignored. What torch.compile wraps goes by the names inside.
        patch: a patch file of exact steps.
        base: the checkpoint that the patch was made for, or the patched one; a folder or a file.
            Words are then read from it, and the model may hold some of them twice.
        mapping: parameter → slices of the base's tensors that it holds, if that is not the base
            tensor of its name: several tensors fused into one, some rows of one, or no tensor of
            the base (an empty list). :func:`mapping_for` finds it for many models.
        shard: this process holds only some rows or tensors of the base. Needs ``base``, because
            digests are of whole chunks. The tensors that it holds are identified; the digests of
            the whole model are not compared.
        verify: False does not read the live words. Needs ``base``, which is still checked. For a
            server that knows its model: whichever side ``base`` is, ``apply_`` then takes the
            model for the patch's base and ``revert_`` for its result. If it is not, the outcome is
            wrong, and no error says so.
        threads: worker threads; None means one per core.
        trust: who must have signed the patch; see :func:`patchc.apply`.
        progress: called with the bytes done.

    Raises:
        WrongBaseError: the model, or ``base``, is not the patch's; names the first tensor.
        PartlyPatchedError: some of the model's chunks hold the patch and others do not.
        UnsupportedInputError: the patch is additive or an update, or a parameter is not plain
            memory in row-major order, or is tied to another that the patch changes otherwise.
        UsageError: ``mapping`` does not fit the model, or ``base`` is missing.
        PatchFormatError, UnsupportedPatchError, CheckpointError: a file cannot be read.
        ResultMismatchError: the outcome would not be the promised one.
        SignatureError: as :func:`patchc.apply`.
        MissingExtraError: a parameter is on a CUDA device and Triton is not installed; or a policy
            is in force, and the extra ``sign`` is not.
    """
    for option, given in (("shard=True", shard), ("verify=False", not verify)):
        if given and base is None:
            raise UsageError(f"{option} needs base=, the checkpoint to take the words from")
    check_model(model)
    with ExitStack() as stack:
        opened = stack.enter_context(open_patch(patch))
        policies = demand_trust(opened, trust)
        refuse_features(opened)
        layout = lay_out(opened, model, mapping or {}, shard, replicas=base is not None)
        live = LiveModel(model, layout)
        live.synchronize()
        checkpoint = stack.enter_context(open_for_patch(base, opened)) if base is not None else None
        runtime = stack.enter_context(Runtime(threads, progress=progress))
        preparation = Preparation(opened, live, checkpoint, verify, shard)
        steps = preparation.run(runtime)
        live.check_untouched()
        return PreparedPatch(preparation, steps, policies)


@takes_models("base")
def apply_(
    model: Live,
    patch: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    mapping: Mapping[str, Sequence[Slice]] | None = None,
    shard: bool = False,
    verify: bool = True,
    threads: int | None = None,
    trust: Trust = ANYBODY,
    progress: Progress = ignore_progress,
) -> HotPatchReport:
    """Patch a loaded model in place, on its devices, without a second copy.

    Everything is checked before the first write: after an error nothing has changed. Arguments and
    errors are those of :func:`prepare`.

    Raises:
        AlreadyPatchedError: the model holds the patch already.
    """
    prepared = prepare(
        model, patch, base=base, mapping=mapping, shard=shard, verify=verify, threads=threads,
        trust=trust, progress=progress,
    )  # fmt: skip
    prepared.apply_()
    return prepared.report


@takes_models("base")
def revert_(
    model: Live,
    patch: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    mapping: Mapping[str, Sequence[Slice]] | None = None,
    shard: bool = False,
    verify: bool = True,
    threads: int | None = None,
    trust: Trust = ANYBODY,
    progress: Progress = ignore_progress,
) -> HotPatchReport:
    """Take a patch back from a loaded model, bit for bit; otherwise as :func:`apply_`.

    ``base`` may be the base or the patched checkpoint.

    Raises:
        NotPatchedError: the model does not hold the patch.
    """
    prepared = prepare(
        model, patch, base=base, mapping=mapping, shard=shard, verify=verify, threads=threads,
        trust=trust, progress=progress,
    )  # fmt: skip
    prepared.revert_()
    return prepared.report
