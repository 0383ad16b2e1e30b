"""Launches that fail, interrupts, and parameters that change between preparation and change."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from live_states import Update, bits, make_update, state_of, stored, to_torch
from tiny_checkpoints import normal, nudge

import patchc.torch as live
from patchc.errors import AlreadyPatchedError, UsageError
from patchc.sides import Side


def test_a_parameter_that_was_written_to_is_refused(attention: Update) -> None:
    state = state_of(attention.before)
    prepared = live.prepare(state, attention.patch)
    state["embed"].add_(0)
    with pytest.raises(UsageError, match="'embed' was written to"):
        prepared.apply_()
    assert bits(state) == stored(attention.base)


def test_a_parameter_that_was_moved_is_refused(attention: Update) -> None:
    state = state_of(attention.before)
    prepared = live.prepare(state, attention.patch)
    prepared.apply_()
    state["embed"] = state["embed"].clone()
    with pytest.raises(UsageError, match="'embed' was moved or replaced"):
        prepared.revert_()
    assert bits(state) == stored(attention.tuned)


def test_a_launch_that_fails_takes_back_those_before_it(
    update: Update,
) -> None:
    state = state_of(update.before)
    prepared = live.prepare(state, update.patch)
    assert prepared.report.launches > 3

    def fail(_: bool) -> None:
        assert bits(state) != stored(update.base)
        raise RuntimeError("no such luck")

    prepared._launches[3] = replace(prepared._launches[3], add=fail)
    with pytest.raises(RuntimeError, match="no such luck"):
        prepared.apply_()
    assert bits(state) == stored(update.base)
    assert prepared.applied is False


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Python's own answer to an interrupt, which a run in the background starts without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_waits_until_all_is_written(update: Update) -> None:
    state = state_of(update.before)
    prepared = live.prepare(state, update.patch)
    first = prepared._launches[0]

    def interrupted(target: Side) -> None:
        first.add(target)
        _thread.interrupt_main()

    prepared._launches[0] = replace(first, add=interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared.apply_()
    assert bits(state) == stored(update.tuned)
    assert prepared.applied


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_while_the_thread_starts_waits_too(
    update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of(update.before)
    prepared = live.prepare(state, update.patch)
    first, start = prepared._launches[0], threading.Thread.start

    def interrupted(target: Side) -> None:
        first.add(target)
        _thread.interrupt_main()
        time.sleep(0.2)

    def slowly(thread: threading.Thread) -> None:
        start(thread)
        time.sleep(0.2)

    prepared._launches[0] = replace(first, add=interrupted)
    monkeypatch.setattr(threading.Thread, "start", slowly)
    with pytest.raises(KeyboardInterrupt):
        prepared.apply_()
    assert bits(state) == stored(update.tuned)


def test_autograd_notices_the_change(tmp_path: Path) -> None:
    before = {"w": normal((80, 60), "F32", 1)}
    update = make_update(tmp_path, before, {"w": nudge(before["w"], 0.1, 1)})
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(to_torch(before["w"]))
    loss = (module.w * module.w).sum()
    live.apply_(module, update.patch)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_tensors_of_inference_mode_change_too(attention: Update) -> None:
    with torch.inference_mode():
        state = {name: tensor.clone() for name, tensor in state_of(attention.before).items()}
    live.apply_(state, attention.patch)
    with torch.inference_mode():
        assert bits(state) == stored(attention.tuned)
        live.revert_(state, attention.patch)
        assert bits(state) == stored(attention.base)


def test_of_two_threads_one_writes(attention: Update) -> None:
    state = state_of(attention.before)
    prepared = live.prepare(state, attention.patch)
    first, refused = prepared._launches[0], list[Exception]()

    def apply_too() -> None:
        try:
            prepared.apply_()
        except AlreadyPatchedError as error:
            refused.append(error)

    another = threading.Thread(target=apply_too)

    def with_another(target: Side) -> None:
        if another.ident is None:
            another.start()
            another.join(0.2)
        first.add(target)

    prepared._launches[0] = replace(first, add=with_another)
    prepared.apply_()
    another.join()
    assert len(refused) == 1
    assert bits(state) == stored(attention.tuned)


def test_what_another_patch_wrote_in_inference_mode_is_seen(attention: Update) -> None:
    """Torch does not count writes to such tensors."""
    with torch.inference_mode():
        state = {name: tensor.clone() for name, tensor in state_of(attention.before).items()}
    one, two = (live.prepare(state, attention.patch) for _ in range(2))
    one.apply_()
    with pytest.raises(UsageError, match="was written to since the patch was prepared"):
        two.apply_()
    one.revert_()
    assert bits(state) == stored(attention.base)
