"""The evaluation of one model's folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

from patchc.checkpoint import Checkpoint, open_checkpoint
from patchc.derivation.session import choose_device, quiet_transformers, reproducible
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.generation import Speaker, load_speaker
from patchc.evaluation.judges import open_judge
from patchc.evaluation.measure import Evaluation, Subject, measure
from patchc.evaluation.perplexity import answer_perplexity, encode_reference, perplexity
from patchc.evaluation.prompts import Prompts, encode_answers, encode_prompts
from patchc.evaluation.requests import RequestSets, SetName
from patchc.evaluation.results import Results
from patchc.evaluation.verdicts import CheckedJudge
from patchc.patching.digest import digest_checkpoint
from patchc.progress import Progress, ignore_progress
from patchc.runtime.workers import Workers


def evaluate_model(
    folder: Path | Checkpoint,
    requests: RequestSets,
    options: EvaluateOptions,
    *,
    name: str | None = None,
    digest: str | None = None,
    prompts: Prompts | None = None,
    judge: CheckedJudge | None = None,
    reference: str | None = None,
    results: Results | None = None,
    progress: Progress = ignore_progress,
) -> Evaluation:
    """Put requests to one model and count what comes back.

    For callers that evaluate many models with one tokenizer: read the requests, encode them
    (:func:`~patchc.evaluation.prompts.encode_prompts`) and open the judge
    (:func:`~patchc.evaluation.judges.open_judge`) once, and pass them in. The model is loaded only
    if ``results`` lacks a reply, or there is a ``reference`` or a reference answer. The same inputs
    and options give the same replies on the same machine.

    Args:
        folder: a checkpoint folder with config, tokenizer and chat template, or one opened.
        requests: the requests of each set.
        options: how to ask and judge.
        name: in the report; None takes the folder's name.
        digest: the model's digest, where it is known; None computes it.
        prompts: the encoded requests, of the same options and the folder's own tokenizer.
        judge: the opened judge.
        reference: a text to take the perplexity of.
        results: an open results file.
        progress: called after each batch.

    Raises:
        EvaluateError: no chat template, a request that does not fit, a reference of fewer than two
            tokens, or a judge that fails.
        CheckpointError, UnsupportedInputError: the model cannot be read or loaded.
        UsageError: there is no such judge or device.
    """
    with ExitStack() as stack:
        if isinstance(folder, Checkpoint):
            checkpoint = folder
        else:
            checkpoint = stack.enter_context(open_checkpoint(folder))
        path = checkpoint.path
        device = choose_device(options.device)
        stack.enter_context(quiet_transformers())
        stack.enter_context(reproducible(device, 0))
        encoded = prompts or encode_prompts(path, requests, options)
        text = None if reference is None else encode_reference(encoded.tokenizer, reference)

        @cache
        def speaker() -> Speaker:
            return load_speaker(checkpoint, encoded.tokenizer, device, options)

        def speak(name: SetName, numbers: Sequence[int]) -> list[str]:
            return speaker().reply([encoded.tokens[name][number] for number in numbers])

        if digest is None:
            with Workers() as workers:
                digest = digest_checkpoint(checkpoint, workers).hex()
        name = name or path.resolve().name
        subject = Subject(name, str(path), digest, encoded.batches, encoded.keys, speak)
        measured = measure(subject, requests, judge or open_judge(options), results, progress)
        if text is not None:
            measured = replace(measured, perplexity=perplexity(speaker().model, text, progress))
        if answers := encode_answers(encoded, requests.harmless):
            found = answer_perplexity(speaker().model, answers, progress)
            measured = replace(measured, answer_perplexity=found)
        return measured
