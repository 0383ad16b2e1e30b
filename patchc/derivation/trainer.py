"""Steps of AdamW on a model whose weights, moments and gradients lie in memory or on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from patchc.checkpoint import Checkpoint
from patchc.derivation.adamw import Kind, check_kind, update
from patchc.derivation.gradient_store import (
    GradientCollector,
    GradientStore,
    HeldGradients,
    ScratchGradients,
)
from patchc.derivation.states import HeldStates, ScratchStates, States
from patchc.derivation.trained import RetainedEntries, Trained
from patchc.layered.boundaries import Boundaries, HeldBoundaries, ScratchBoundaries
from patchc.layered.layered_model import LayeredModel
from patchc.layered.model_parts import ModelParts
from patchc.layered.passes import Pass, Term
from patchc.layered.scratch import Scratch
from patchc.layered.sources import BaseSource, Source
from patchc.layered.weights import HeldWeights, StreamedWeights, Weights


@dataclass(frozen=True)
class Layout:
    """Where a derivation keeps what it works on.

    Attributes:
        streams: whether weights, moments and gradients lie in scratch files, and a layer's weights
            are read when it is computed; otherwise all is in memory.
        keeps: whether what the layers' gradients need is kept, in place of computing each twice.
        ahead: whether the next layer is read while one is computed.
        states_in_scratch: whether the states at the layers' boundaries lie in scratch files.
        holds_head: whether the output head is in memory while all losses need it, and not read for
            each.
    """

    streams: bool = False
    keeps: bool = True
    ahead: bool = True
    states_in_scratch: bool = False
    holds_head: bool = True

    def __post_init__(self) -> None:
        # A layer's memory is another's by the time its graph would need it.
        assert not (self.streams and self.keeps)


IN_MEMORY = Layout()


@dataclass(frozen=True)
class Workplace:
    """What computes, and where.

    Attributes:
        base: the base.
        device: where the model computes.
        dtype: of the model's weights.
        autocast: whether products are computed in bfloat16.
        layout: where things lie.
        scratch: the folder of scratch files; None where nothing streams.
    """

    base: Checkpoint
    device: torch.device
    dtype: torch.dtype
    autocast: bool
    layout: Layout
    scratch: Scratch | None

    @cached_property
    def source(self) -> BaseSource:
        """The values of the base."""
        return BaseSource(self.base)


class Trainer:
    """A model and the optimiser's state.

    Attributes:
        model: the model as it is trained so far.
        states: values and moments of what is trained.
        weights: gives the weights of the model as it is trained so far.

    Args:
        place: what computes.
        parts: the model, new from the base.
        trained: which entries are trained.
        kind: of the moments.
        name: of the files in the scratch folder.

    Raises:
        MissingExtraError: the optimizer's package is missing.
        StorageError: there is no room for scratch files.
    """

    def __init__(
        self, place: Workplace, parts: ModelParts, trained: Trained, kind: Kind, name: str
    ) -> None:
        check_kind(kind)
        self._place = place
        self._trained = trained
        self._kind = kind
        self._name = name
        self._held_deltas: _HeldDeltas | None = None
        self._store: GradientStore
        self.states: States
        weights = self._stream(parts) if place.layout.streams else self._hold(parts)
        self.model = LayeredModel(parts, weights, place.device, place.autocast)
        self.weights: Source = trained.weights(self.states)
        self._collector = GradientCollector(self._store, trained)

    def gradients(
        self,
        terms: Sequence[Term],
        accept: Callable[[int, float], bool],
        passed: Callable[[int], None] = lambda _layers: None,
    ) -> tuple[list[float], Tensor]:
        """Compute the losses of a step, their gradients, and the norm of these, an fp32 scalar.

        ``accept`` is called with each loss's number and value. Where it returns False, the step
        ends there and the norm is zero. ``passed`` is called with the number of layers that were
        passed, on the way forward and back.
        """
        kept, keeps = self.boundaries("step"), self._place.layout.keeps
        values = Pass(self.model, terms, self._collector, kept, keeps, passed).run(accept)
        if len(values) < len(terms) or not kept.back:
            return values, torch.zeros(())
        return values, self._collector.norm()

    def update(
        self, scale: float, rate: float, done: Callable[[float], None] = lambda _share: None
    ) -> None:
        """Take a step with the gradients times ``scale``; one that was interrupted is completed.

        ``done`` is called with the share of the entries that are updated.
        """
        step, entries = self.states.steps + 1, sum(self._trained.sizes.values())
        updated = 0
        for run, values, moments in self.states.visit():
            gradient = self._store.read(run.name, run.first, run.count)
            update(values, gradient.mul_(scale), moments, step, rate)
            updated += run.count
            done(updated / entries)
        if self._held_deltas is not None:
            self._held_deltas.write()
        self.model.weights.changed()

    @property
    def moved_bytes(self) -> int:
        """Bytes that were read from files and written to them; 0 in memory."""
        scratch = self._place.scratch
        return 0 if scratch is None else self._place.source.bytes_read + scratch.bytes_moved

    def finish(self) -> None:
        """Give up gradients and moments; the weights stay as they are trained."""
        if self._place.scratch is not None:
            for name in ("gradients", "step"):
                self._place.scratch.remove_files(f"{self._name}-{name}")
        else:
            self._store = HeldGradients(self._trained.sizes, self._place.device)
            self._collector = GradientCollector(self._store, self._trained)
            self.states.forget_moments()

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Let the model be the base for a while, whatever an interrupted run has trained."""
        trained = self.model.weights
        if not self.states.steps:
            yield
            return
        base = self._streamed(self.model.parts, self._place.source)
        try:
            self.model.weights = base
            yield
        finally:
            base.close()
            self.model.weights = trained
            trained.changed()

    def boundaries(
        self, name: str, many: bool = False, goes_back: bool = True, resumes: bool = False
    ) -> Boundaries:
        """Make the boundaries of a pass, in memory or in a scratch file of this name.

        Those of ``many`` losses lie in a file wherever weights do.
        """
        layout, scratch = self._place.layout, self._place.scratch
        if not layout.states_in_scratch and not (many and layout.streams):
            return HeldBoundaries()
        assert scratch is not None
        return ScratchBoundaries(
            scratch,
            self._place.dtype,
            len(self.model.parts.layers),
            self._place.device,
            f"{self._name}-{name}",
            resumes,
            goes_back,
        )

    def close(self) -> None:
        """Stop reading ahead."""
        if isinstance(self.model.weights, StreamedWeights):
            self.model.weights.close()

    def _hold(self, parts: ModelParts) -> Weights:
        """Put everything into memory."""
        place, trained = self._place, self._trained
        weights = HeldWeights.read(parts, place.source, place.device, place.dtype)
        if isinstance(trained, RetainedEntries):
            self._held_deltas = _HeldDeltas(trained, weights.values)
            values = self._held_deltas.deltas
        else:
            values = {name: weights.values[name].view(-1) for name in trained.sizes}
        self.states = HeldStates(values, self._kind)
        self._store = HeldGradients(trained.sizes, place.device)
        return weights

    def _stream(self, parts: ModelParts) -> Weights:
        """Put what is trained into scratch files; the rest is read from the base."""
        trained, scratch = self._trained, self._place.scratch
        assert scratch is not None
        start, name = trained.start(), f"{self._name}-states"
        self.states = ScratchStates(scratch, trained.sizes, self._kind, start, name)
        self._store = ScratchGradients(scratch, trained.sizes, f"{self._name}-gradients")
        return self._streamed(parts, trained.weights(self.states))

    def _streamed(self, parts: ModelParts, source: Source) -> StreamedWeights:
        place = self._place
        weights = StreamedWeights(
            parts,
            source,
            place.device,
            place.dtype,
            place.autocast,
            place.layout.ahead,
            place.layout.holds_head,
        )
        weights.changed()
        return weights


class _HeldDeltas:
    """The deltas of the entries that are trained, beside a model in memory.

    Attributes:
        deltas: fp32, by tensor.
    """

    def __init__(self, trained: RetainedEntries, weights: Mapping[str, Tensor]) -> None:
        self._weights = {name: weights[name].view(-1) for name in trained.sizes}
        self._places = {
            name: trained.positions(name).to(flat.device) for name, flat in self._weights.items()
        }
        self._base = {
            name: flat[self._places[name]].float() for name, flat in self._weights.items()
        }
        self.deltas = {name: torch.zeros_like(base) for name, base in self._base.items()}

    def write(self) -> None:
        """Add the deltas to the base's values in the model."""
        for name, flat in self._weights.items():
            values = self._base[name] + self.deltas[name]
            flat[self._places[name]] = values.to(flat.dtype)
