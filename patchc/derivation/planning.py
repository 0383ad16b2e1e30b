"""Plans a derivation: measures a layer, and chooses where things lie within the budget."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from patchc.derivation.adamw import Kind
from patchc.derivation.budget import Budget, process_memory
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import BATCH, Example, in_batches
from patchc.derivation.load import Load, of_examples, of_following
from patchc.derivation.margin_tuning import MarginTuning
from patchc.derivation.memory_plan import Need, Work
from patchc.derivation.response_tuning import ResponseTuning
from patchc.derivation.scores import scored_tensors
from patchc.derivation.trained import RetainedEntries
from patchc.derivation.trainer import Workplace
from patchc.derivation.ways import choose, ways
from patchc.layered.activations import layer_seconds, measure_layer
from patchc.layered.allocation import return_memory
from patchc.layered.layered_model import LayeredModel
from patchc.layered.model_parts import load_parts
from patchc.layered.weights import StreamedWeights


class Planner:
    """What is known of a derivation before it begins.

    Args:
        place: what computes; its layout is not looked at.
        objective: what is learnt.
        anchors: replies of the base that should not change.
        options: how it is derived.
    """

    def __init__(
        self,
        place: Workplace,
        objective: ResponseTuning | MarginTuning,
        anchors: Sequence[Example],
        options: DeriveOptions,
    ) -> None:
        self._options = options
        self._place = place
        parts = load_parts(place.base, place.device, place.dtype)
        source = place.source
        self._weights = StreamedWeights(
            parts, source, place.device, place.dtype, place.autocast, ahead=False
        )
        self._model = LayeredModel(parts, self._weights, place.device, place.autocast)
        cost = measure_layer(self._model)
        self._weights.forget()
        return_memory()
        trained = objective.trained(source, parts, False)
        base_sums = any(kind.startswith("base-") for kind in options.scores)
        tuned_sums = any(not kind.startswith("base-") for kind in options.scores)
        step = max(
            (self._loads(objective, direction, anchors) for direction in options.folders),
            key=lambda loads: sum(load.tokens for load in loads),
        )
        self.work = Work(
            parts=parts,
            dtype=place.dtype,
            autocast=place.autocast,
            on_device=place.device.type == "cuda",
            trained=trained.sizes,
            draws=isinstance(trained, RetainedEntries),
            scored=scored_tensors(parts.shapes, options),
            sums=frozenset(["base"] * base_sums + ["tuned"] * tuned_sums),
            compact=options.holding is not None,
            cost=cost,
            whole_logits=parts.head.bias is not None,
            step=step,
            samples=objective.sample_loads() if options.scores else [],
            asked=self._asked(objective, anchors),
            base_bytes=sum(tensor.nbytes for tensor in place.base.tensors.values()),
            process_bytes=process_memory(),
        )

    def choose(self, budget: Budget, streams: bool = False) -> Need:
        """Choose the first way that fits into the budget; only from those that stream, if asked.

        Raises:
            UsageError, StorageError: none does; see :func:`patchc.derivation.ways.choose`.
        """
        kinds: list[Kind] = ["adamw", "adamw8bit"]
        if self._options.optimizer != "auto":
            kinds = [self._options.optimizer]
        found = ways(self.work, kinds)
        return choose((way for way in found if way.layout.streams or not streams), budget)

    def seconds(self, need: Need) -> tuple[float, float]:
        """Estimate the seconds of a step, and of the scoring of a direction.

        One layer is measured, and how fast its weights are read. Head and embedding count by their
        parameters; the other bytes of a step as if they were read at the same speed.
        """
        parts, work = self.work.parts, self.work
        start, before = time.perf_counter(), self._place.source.bytes_read
        self._weights.changed()
        self._weights.layer(0, None)
        rate = (self._place.source.bytes_read - before) / max(time.perf_counter() - start, 1e-6)
        inside = sum(math.prod(parts.shapes[n]) for n in parts.group(0))
        share = math.prod(parts.shapes[parts.head_name]) / inside
        again = 0 if need.layout.keeps else 1

        def of(loads: Sequence[Load]) -> float:
            largest = max(loads, key=lambda load: load.tokens)
            forward, both = layer_seconds(self._model, largest.rows, largest.columns)
            scaled = sum(load.tokens for load in loads) / largest.tokens
            places = sum(load.places for load in loads) / sum(load.tokens for load in loads)
            layers = len(parts.layers) + share * places
            return scaled * layers * (both + again * forward)

        weights = 2 * 4 * sum(map(math.prod, parts.shapes.values()))
        moved = weights if need.layout.streams else 0
        scoring = of(work.samples) + moved / rate if work.samples else 0.0
        return of(work.step) + need.step_bytes / rate, scoring

    def close(self) -> None:
        """Give up what was read."""
        self._weights.close()

    def _asked(
        self, objective: ResponseTuning | MarginTuning, anchors: Sequence[Example]
    ) -> list[Load]:
        """Return the runs of the base whose outcome is compared with."""
        every = [(anchors, BATCH)]
        if isinstance(objective, ResponseTuning) and self._options.objective == "npo":
            tunings = [self._options.tuning(one) for one in self._options.folders]
            every.append((objective.examples, max(one.batch_size for one in tunings)))
        return [
            of_examples(batch, len(batch))
            for examples, size in every
            for batch in in_batches(examples, size)
        ]

    def _loads(
        self,
        objective: ResponseTuning | MarginTuning,
        direction: Direction,
        anchors: Sequence[Example],
    ) -> list[Load]:
        loads = objective.loads(direction)
        if anchors:
            size = self._options.tuning(direction).batch_size
            rows = min(-(-size // 3), len(anchors))
            before_last = [one.response[:-1] for one in anchors]
            loads.append(of_following([one.prompt for one in anchors], before_last, rows))
        return loads
