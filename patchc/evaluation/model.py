"""The evaluation of one model: from a folder, or already loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

from patchc.checkpoint import open_checkpoint
from patchc.derivation.session import choose_device, quiet_transformers, reproducible
from patchc.evaluation.generation import Speaker, load_speaker
from patchc.evaluation.likeliest import choose
from patchc.evaluation.measure import Evaluation, Setup, Subject, measure
from patchc.evaluation.perplexity import answer_perplexity, encode_reference, perplexity
from patchc.evaluation.prompts import encode_answers
from patchc.evaluation.requests import SetName
from patchc.evaluation.results import Results
from patchc.patching.digest import digest_checkpoint
from patchc.progress import Progress, ignore_progress
from patchc.runtime.runtime import Runtime


def evaluate_model(
    folder: Path,
    name: str,
    setup: Setup,
    results: Results | None = None,
    progress: Progress = ignore_progress,
) -> Evaluation:
    """Ask one model all requests and count its replies.

    The model is loaded only if ``results`` lacks a reply, or the setup has a reference text or
    answer. The same inputs and options give the same replies on the same machine.

    Args:
        folder: a checkpoint folder with its config.
        name: the model's name in the report.
        setup: what to ask; its prompts are encoded with the model's own tokenizer.
        results: an open results file.
        progress: called after each batch.

    Raises:
        EvaluateError: a request that does not fit, a reference of fewer than two tokens, or a judge
            that fails.
        CheckpointError, UnsupportedInputError: the model cannot be read or loaded.
        UsageError: there is no such device.
    """
    prompts, options = setup.prompts, setup.options
    with ExitStack() as stack:
        checkpoint = stack.enter_context(open_checkpoint(folder))
        device = choose_device(options.device)
        stack.enter_context(quiet_transformers())
        stack.enter_context(reproducible(device, 0))

        @cache
        def speaker() -> Speaker:
            return load_speaker(checkpoint, prompts.tokenizer, device, options)

        def speak(set_name: SetName, numbers: Sequence[int]) -> list[str]:
            return ask(speaker(), setup, set_name, numbers)

        with Runtime() as runtime:
            digest = digest_checkpoint(checkpoint, runtime).hex()
        subject = Subject(name, str(checkpoint.path), digest, prompts.batches, prompts.keys, speak)
        return evaluate_loaded(subject, speaker, setup, results, progress)


def ask(speaker: Speaker, setup: Setup, name: SetName, numbers: Sequence[int]) -> list[str]:
    """Reply to some requests of a set, in their order; to a question with choices with one of them.

    The others get greedy replies. Requests of both forms may be asked together.

    Raises:
        EvaluateError: a request does not fit the model's length.
        UnsupportedInputError: the model has no embedding for a token.
    """
    prompts, asked = setup.prompts, getattr(setup.requests, name)
    open_ones = [number for number in numbers if not asked[number].choices]
    chosen = [number for number in numbers if asked[number].choices]
    found: dict[int, str] = {}
    if open_ones:
        spoken = speaker.reply([prompts.tokens[name][number] for number in open_ones])
        found |= zip(open_ones, spoken, strict=True)
    if chosen:
        found |= zip(chosen, choose(speaker, prompts, asked, chosen), strict=True)
    return [found[number] for number in numbers]


def evaluate_loaded(
    subject: Subject,
    speaker: Callable[[], Speaker],
    setup: Setup,
    results: Results | None,
    progress: Progress,
) -> Evaluation:
    """Measure a subject, then the perplexities under the model of ``speaker``.

    ``speaker`` is called only if the setup has a reference text or answer.

    Raises:
        EvaluateError, StorageError: as :func:`~patchc.evaluation.measure.measure`; also for a
            reference of fewer than two tokens.
    """
    reference, answers = setup.reference, encode_answers(setup.prompts, setup.requests.harmless)
    text = None if reference is None else encode_reference(setup.prompts.tokenizer, reference)
    measured = measure(subject, setup.requests, setup.judge, results, progress)
    if text is not None:
        speaker().check(text)
        measured = replace(measured, perplexity=perplexity(speaker().model, text, progress))
    if answers:
        for one in answers:
            speaker().check(one.response)
        found = answer_perplexity(speaker().model, answers, progress)
        measured = replace(measured, answer_perplexity=found)
    return measured
