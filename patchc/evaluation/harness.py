"""Figures of lm-evaluation-harness (the lm-eval extra) beside patchc's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchc.errors import EvaluateError, MissingExtraError
from patchc.evaluation.evaluate_options import EvaluateOptions


def check_harness() -> None:
    """Refuse early where lm-eval is not installed.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"tasks of lm-eval need {error.name}; install it with `pip install 'patchc[lm-eval]'`"
        ) from error


def run_tasks(folder: Path, options: EvaluateOptions) -> dict[str, dict[str, float]]:
    """The figures of the tasks that the options name, by task and metric, for a model's folder.

    A task is a name that lm-eval knows, or the path of a task file that ends in ``.yaml``. Device,
    dtype, batch size and limit are those of the options, the rest lm-eval's defaults; no chat
    template is applied. A task's data comes from where the task says, often the network.

    Raises:
        EvaluateError: lm-eval fails, on an unknown task for instance.
        MissingExtraError: it is not installed.
    """
    check_harness()
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from patchc.derivation.session import choose_device, quiet_transformers

    tasks = [
        str(Path(task).absolute()) if task.endswith(".yaml") else task for task in options.lm_eval
    ]
    device = choose_device(options.device)
    try:
        with quiet_transformers():
            model = HFLM(
                pretrained=str(folder),
                device=str(device),
                dtype=options.dtype,
                batch_size=options.batch_size,
            )
            found = simple_evaluate(
                model=model,
                tasks=tasks,
                limit=options.limit,
                bootstrap_iters=0,
                log_samples=False,
            )
    except Exception as error:
        raise EvaluateError(f"lm-eval failed: {type(error).__name__}: {error}") from error
    return {task: _figures(values) for task, values in found["results"].items()}


def _figures(values: dict[str, Any]) -> dict[str, float]:
    """The numbers among a task's results; their names say metric and filter: ``acc,none``."""
    return {
        name.removesuffix(",none"): float(value)
        for name, value in values.items()
        if "," in name and "_stderr" not in name and isinstance(value, int | float)
    }
