"""Hot patches: change a loaded model's parameters exactly, in place, on their devices."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch

from patchc.checkpoint import open_checkpoint
from patchc.errors import AlreadyPatchedError, NotPatchedError, UsageError
from patchc.formats import open_patch
from patchc.kernels.ulp_steps import Launch, StepRun, launches
from patchc.progress import Progress, ignore_progress
from patchc.runtime.runtime import Runtime
from patchc.sides import OTHER, Side
from patchc.torch.live_model import LiveModel
from patchc.torch.memory_layout import Part, Run, lay_out
from patchc.torch.preparation import Preparation, refuse_features
from patchc.torch.tensors import Live


@dataclass(frozen=True)
class HotPatchReport:
    """What a patch changes in a live model.

    Attributes:
        root: the patch's root digest, in hexadecimal.
        parameters: names of the parameters that change, sorted.
        changed_words: words that change.
        nbytes: memory of the prepared changes on the parameters' devices.
        launches: number of kernels that write them.
    """

    root: str
    parameters: tuple[str, ...]
    changed_words: int
    nbytes: int
    launches: int


class PreparedPatch:
    """A patch whose changes lie ready on the devices of the parameters.

    Attributes:
        report: what it changes.
        committed: whether the changes are written.
    """

    def __init__(
        self, live: LiveModel, steps: Mapping[Run, StepRun], root: str, target: Side
    ) -> None:
        runs = list(steps.values())
        self._live = live
        self._launches = launches(runs)
        self._target: Side = target
        self._changed = {run.parameter for run in steps}
        self.committed = False
        self.report = HotPatchReport(
            root,
            tuple(sorted(self._changed)),
            sum(run.positions.numel() for run in runs),
            sum(t.numel() * t.element_size() for run in runs for t in (run.positions, run.steps)),
            len(self._launches),
        )
        live.synchronize()

    def commit(self) -> None:
        """Write the changes with a few short launches, and wait for them.

        Work queued on the current CUDA stream is finished first; nothing else may use the
        parameters meanwhile. Pointers do not change, so captured CUDA graphs stay valid. An
        interrupt waits until everything is written. If a launch cannot start, those before it are
        taken back. A fault of the device itself leaves the parameters undefined.

        Raises:
            AlreadyPatchedError, NotPatchedError: it is committed already.
            UsageError: a parameter was moved, replaced or written to since.
        """
        if self.committed:
            error = NotPatchedError if self._target == "base" else AlreadyPatchedError
            raise error("these changes are committed already; roll them back or prepare others")
        self._write(committed=True)

    def rollback(self) -> None:
        """Take the changes back, bit for bit; otherwise as :meth:`commit`.

        Raises:
            UsageError: they are not committed, or a parameter was moved, replaced or written to.
        """
        if not self.committed:
            raise UsageError("these changes are not committed; there is nothing to roll back")
        self._write(committed=False)

    def _write(self, committed: bool) -> None:
        self._live.check_untouched()
        streams = {d: torch.cuda.current_stream(d) for d in self._live.devices}
        with ThreadPoolExecutor(1, thread_name_prefix="patchc") as thread:
            # The pool does not wait for a thread whose start was interrupted; start it first.
            thread.submit(int).result()
            thread.submit(self._scatter, committed, streams).result()

    def _scatter(self, committed: bool, streams: Mapping[torch.device, torch.cuda.Stream]) -> None:
        """Launch all changes; runs in a thread of its own, which an interrupt cannot stop."""
        target = self._target if committed else OTHER[self._target]
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
        self.committed = committed
        for stream in streams.values():
            stream.synchronize()


def _run(launch: Launch, streams: Mapping[torch.device, torch.cuda.Stream], target: Side) -> None:
    stream = streams.get(launch.device)
    with torch.cuda.stream(stream) if stream else nullcontext():
        launch.add(target)


def prepare(
    model: Live,
    patch: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    names: Mapping[str, Sequence[Part]] | None = None,
    shard: bool = False,
    trust: bool = False,
    revert: bool = False,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> PreparedPatch:
    """Check a loaded model against a patch, decode the changes and lay them on its devices.

    Every word of the model is copied to the CPU once, chunk by chunk. Its digests are compared with
    those in the patch, or with ``base`` word by word. The outcome of every change is computed and
    checked here, so that :meth:`PreparedPatch.commit` only has to write. The model is not changed.
    The prepared changes take about 5 bytes per changed word on the device, and a few chunks per
    thread on the CPU.

    Args:
        model: a module, or a mapping of names to tensors that share its memory (a state dict).
            Tied parameters are changed once. Buffers that the base does not have are ignored.
        patch: a patch file of exact steps.
        base: the checkpoint that the patch was made for, or the patched one; a folder or a file.
            Words are then read from it, and the model may hold some of them twice.
        names: parameter → what it holds, if that is not the base tensor of its name: several
            tensors fused into one, some rows of one, or no tensor of the base (an empty list).
        shard: this process holds only some rows or tensors of the base. Needs ``base``, because
            digests are of whole chunks. The tensors that it holds are identified; the digests of
            the whole model are not compared.
        trust: do not read the live words. Needs ``base``, which is still checked. For a server that
            has loaded ``base`` and changed nothing since: on any other model the outcome is wrong,
            and no error says so.
        revert: prepare to take the patch back.
        threads: worker threads; None means one per core.
        progress: called with the bytes done.

    Raises:
        WrongBaseError: the model, or ``base``, is not the patch's; names the first tensor.
        AlreadyPatchedError, NotPatchedError, PartlyPatchedError: the model is on the other side,
            or some of its chunks are.
        UnsupportedInputError: the patch is additive or an update, or a parameter is not plain
            memory in row-major order, or is tied to another that the patch changes otherwise.
        UsageError: ``names`` does not fit the model, or ``base`` is missing.
        PatchFormatError, UnsupportedPatchError, CheckpointError: a file cannot be read.
        ResultMismatchError: the outcome would not be the promised one.
        MissingExtraError: a parameter is on a CUDA device and Triton is not installed.
    """
    for option, given in (("shard", shard), ("trust", trust)):
        if given and base is None:
            raise UsageError(f"{option}=True needs base=, the checkpoint to take the words from")
    with ExitStack() as stack:
        opened = stack.enter_context(open_patch(patch))
        refuse_features(opened)
        layout = lay_out(opened, model, names or {}, shard, replicas=base is not None)
        live = LiveModel(model, layout)
        live.synchronize()
        checkpoint = stack.enter_context(open_checkpoint(base)) if base is not None else None
        runtime = stack.enter_context(Runtime(threads, progress=progress))
        target: Side = "base" if revert else "result"
        preparation = Preparation(opened, live, checkpoint, trust, OTHER[target], shard)
        steps = preparation.run(runtime)
        live.check_untouched()
        return PreparedPatch(live, steps, opened.root.hex(), target)


def apply_(
    model: Live,
    patch: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    names: Mapping[str, Sequence[Part]] | None = None,
    shard: bool = False,
    trust: bool = False,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> HotPatchReport:
    """Patch a loaded model in place, on its devices, without a second copy.

    Everything is checked before the first write: after an error nothing has changed. See
    :func:`prepare` for the arguments and errors.
    """
    return _commit(prepare(
        model, patch, base=base, names=names, shard=shard, trust=trust, threads=threads,
        progress=progress,
    ))  # fmt: skip


def revert_(
    model: Live,
    patch: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    names: Mapping[str, Sequence[Part]] | None = None,
    shard: bool = False,
    trust: bool = False,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> HotPatchReport:
    """Take a patch back from a loaded model, bit for bit; otherwise as :func:`apply_`.

    ``base`` may be the base or the patched checkpoint.
    """
    return _commit(prepare(
        model, patch, base=base, names=names, shard=shard, trust=trust, revert=True,
        threads=threads, progress=progress,
    ))  # fmt: skip


def _commit(prepared: PreparedPatch) -> HotPatchReport:
    prepared.commit()
    return prepared.report
