"""The survey of a landscape: every place that the file lacks is measured and added to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from patchc.checkpoint import Checkpoint
from patchc.derivation.margin import Openings
from patchc.derivation.session import choose_device, quiet_transformers, reproducible
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.generation import load_speaker
from patchc.evaluation.measure import Setup
from patchc.landscapes.coherence import Coherence
from patchc.landscapes.directions import RandomDirection
from patchc.landscapes.landscape_options import LandscapeOptions
from patchc.landscapes.lines import LandscapeFile, ReplyLine, place_key
from patchc.landscapes.measuring_places import Surveyor, first_openings
from patchc.landscapes.movable import MovableModel
from patchc.landscapes.place import Place, margin_places, replied_places
from patchc.progress import Progress, ProgressEvent
from patchc.runtime.memory import usable_cores


@dataclass
class Survey:
    """What a survey works on.

    Attributes:
        base: the open base.
        open_patched: opens the patched model, once a place is missing; None without a patch.
        setups: what the model is asked, without and with a system message.
        options: the places.
        asking: how it is asked.
        lines: the open landscape file.
        progress: called after each place.
    """

    base: Checkpoint
    open_patched: Callable[[], Checkpoint] | None
    setups: Mapping[bool, Setup]
    options: LandscapeOptions
    asking: EvaluateOptions
    lines: LandscapeFile
    progress: Progress
    _surveyor: Surveyor | None = field(default=None, init=False)

    def run(self) -> dict[bool, Openings]:
        """Measure all places; the model is loaded only if one is missing.

        Returns:
            How refusals begin, without and with the system message; empty without planes.

        Raises:
            DeriveError, EvaluateError, NumericError, UnsupportedInputError, StorageError: see
                :func:`patchc.landscape`.
        """
        is_patched = self.open_patched is not None
        replied = [(p, s) for p in replied_places(self.options, is_patched) for s in self.setups]
        planned = [(p, s) for p in margin_places(self.options, is_patched) for s in self.setups]
        total, openings = len(replied) + len(planned), dict[bool, Openings]()
        with ExitStack() as stack:
            for done, (place, system) in enumerate(replied, start=1):
                if self.lines.find(place_key(place, system, "replies")) is None:
                    self.lines.add(self._open(stack).replies(place, system))
                if planned and place == Place():
                    openings[system] = self._find_openings(system)
                self._tell(done, total, place)
            for done, (place, system) in enumerate(planned, start=len(replied) + 1):
                if self.lines.find(place_key(place, system, "margins")) is None:
                    self.lines.add(self._open(stack).margins(place, system, openings[system]))
                self._tell(done, total, place)
        return openings

    def _find_openings(self, system: bool) -> Openings:
        base = self.lines.find(place_key(Place(), system, "replies"))
        assert isinstance(base, ReplyLine)  # the first place is the base
        return first_openings(base, self.setups[system])

    def _tell(self, done: int, total: int, place: Place) -> None:
        told = ", ".join(f"{name} {value:g}" for name, value in place.to_json().items())
        self.progress(ProgressEvent("landscape", done, total, "places", told))

    def _open(self, stack: ExitStack) -> Surveyor:
        if self._surveyor is None:
            self._surveyor = stack.enter_context(self._opened())
        return self._surveyor

    @contextmanager
    def _opened(self) -> Iterator[Surveyor]:
        """Load the base, ready to be moved and asked."""
        patched = self.open_patched() if self.open_patched else None
        device = choose_device(self.asking.device)
        tokenizer = next(iter(self.setups.values())).prompts.tokenizer
        directions = {name: RandomDirection(self.options.seed, name) for name in self.options.names}
        with (
            quiet_transformers(),
            reproducible(device, 0),
            ThreadPoolExecutor(usable_cores(), thread_name_prefix="patchc") as threads,
        ):
            speaker = load_speaker(self.base, tokenizer, device, self.asking)
            movable = MovableModel(speaker.model, self.base, patched, directions, threads)
            yield Surveyor(speaker, movable, self.setups, Coherence(speaker.model))
