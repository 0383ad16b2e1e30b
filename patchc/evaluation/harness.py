"""Figures of lm-evaluation-harness (the lm-eval extra) beside patchc's own."""

from __future__ import annotations

from pathlib import Path

from patchc.checkpoint import open_checkpoint
from patchc.errors import EvaluateError, import_errors
from patchc.evaluation.evaluate_options import EvaluateOptions


def check_harness() -> None:
    """Raise MissingExtraError early if lm-eval is not installed."""
    with import_errors("an lm-eval task", "lm-eval"):
        import lm_eval  # noqa: F401


def run_tasks(folder: Path, options: EvaluateOptions) -> dict[str, dict[str, float]]:
    """Run the tasks that the options name on a model's folder; returns figures by task and metric.

    A task is a name that lm-eval knows, or the path of a task file that ends in ``.yaml``. Device,
    dtype, batch size and limit are those of the options; the rest are lm-eval's defaults. No chat
    template is applied. A task loads its data from where it says, often the network.

    The model is loaded here, as for requests: lm-eval would take kernels and adapters that its
    files name, from a hub.

    Raises:
        EvaluateError: lm-eval fails, for instance on an unknown task.
        CheckpointError, UnsupportedInputError: the model cannot be read or loaded.
        MissingExtraError: lm-eval is not installed.
    """
    check_harness()
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from patchc.derivation.session import choose_device, quiet_transformers
    from patchc.evaluation.generation import load_causal
    from patchc.layered.from_folder import load_config, load_tokenizer_files

    tasks = [
        str(Path(task).absolute()) if task.endswith(".yaml") else task for task in options.lm_eval
    ]
    device = choose_device(options.device)
    with quiet_transformers(), open_checkpoint(folder) as checkpoint:
        loaded = load_causal(checkpoint, device, options)
        tokenizer = load_tokenizer_files(folder, load_config(folder, checkpoint))
    try:
        with quiet_transformers():
            model = HFLM(pretrained=loaded, tokenizer=tokenizer, batch_size=options.batch_size)
            found = simple_evaluate(
                model=model, tasks=tasks, limit=options.limit, bootstrap_iters=0, log_samples=False
            )
    except Exception as error:
        raise EvaluateError(f"lm-eval failed: {type(error).__name__}: {error}") from error
    # The names of numbers hold a metric and a filter: "acc,none".
    return {
        task: {
            name.removesuffix(",none"): float(value)
            for name, value in values.items()
            if "," in name and "_stderr" not in name and isinstance(value, int | float)
        }
        for task, values in found["results"].items()
    }
