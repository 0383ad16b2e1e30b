"""The experiment on SmolLM2-135M-Instruct, from the base to the tables; every stage is kept.

    make bench-smollm2

A second run repeats only what has changed or was interrupted. Hyper-parameters are chosen on the
development split; the test split is asked once for every row and seed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import smollm2
from backbone import Teaching, teach
from blake3 import blake3
from corpus import CATEGORIES, REFERENCE, lessons, write_corpus, write_jsonl
from methods import SAFEPATCHING, AnyRecipe, Method, ablations, by_sum, comparisons, frontier
from report import Report, Row, write_report
from stages import STAMP, Stages

import patchc
from patchc import DeriveOptions, EvaluateOptions
from patchc.evaluation.figures import draw_sweep
from patchc.evaluation.trials import Trial, TrialFile, open_trials
from patchc.json_values import json_values
from patchc.recipe import MergeRecipe, Recipe
from patchc.recipe.safepatching import SCORES
from patchc.verbs.bench import Bench, open_bench
from patchc.verbs.build import Values
from patchc.verbs.sweep import SweepReport

WORK = smollm2.cache() / "bench-smollm2"
DOCS = Path(__file__).parents[2] / "docs/explanation"
TEACHING = Teaching(steps=160)
LESSONS = 2000
DERIVE = DeriveOptions(scores=SCORES, precision="bfloat16", device="cpu")
"""The library's defaults, which α and β of its recipe belong to."""
ASK = EvaluateOptions(max_new_tokens=24)
CONTINUAL_RATIOS = (0.3, 0.5, 0.6, 0.7, 0.8)
"""β / α to try where a model that has been patched is patched again."""


class Experiment:
    """The stages in order, each from the results of those before it."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._stages = Stages(work)
        self.base = smollm2.base_model()
        self.corpus = self._stages.run(
            "corpus", {"texts": _sources("corpus.py", "words.py")}, write_corpus
        )
        backbone = self._stages.run(
            "backbone",
            {
                "teaching": vars(TEACHING),
                "lessons": _digest(lessons(LESSONS)),
                "program": _sources("backbone.py"),
            },
            self._teach,
        )
        self.backbone = backbone / "model"
        self.tuned = self._derive("derived", self.backbone, CATEGORIES[0])

    def bench(self, split: str, category: str = CATEGORIES[0]) -> Bench:
        """The requests of a split, with one category of restricted ones."""
        return open_bench(self.backbone, **self._requests(split, category), options=ASK)

    def choose(self, method: Method) -> tuple[AnyRecipe, list[SweepReport]]:
        """The best of a method's points on the development split."""
        if not method.grids:
            return method.recipe, []
        name = "".join(c if c.isalnum() else "-" for c in method.name)
        reports = [
            patchc.sweep(
                self.backbone,
                **self._models(method.recipe),
                **self._requests("dev", CATEGORIES[0]),
                out=self._work / "development" / f"{name}.jsonl",
                grid=grid,
                recipe=method.recipe,
                options=ASK,
            )
            for grid in method.grids
        ]
        best = min(reports[-1].trials, key=lambda trial: by_sum(trial, reports[0].base))
        assert best.recipe is not None
        kind = type(method.recipe)
        print(f"{method.name}: {best.recipe} {_rates(best)}", flush=True)
        return kind.from_json(best.recipe), reports

    def test(self, bench: Bench, trials: TrialFile, method: Method, recipe: AnyRecipe) -> Row:
        """The test split's figures of a chosen recipe, one trial a retention seed."""
        found = []
        for seed in range(method.seeds):
            seeded = recipe.with_changes(seed=seed) if method.seeds > 1 else recipe
            trial = trials.find(seeded.to_json())
            if trial is None:
                trial = self._try(bench, seeded)
                trials.add(trial)
            found.append(trial)
        print(f"test {method.name}: {' | '.join(map(_rates, found))}", flush=True)
        return Row(method.name, recipe.to_json(), tuple(found))

    def model_row(self, bench: Bench, trials: TrialFile, name: str, folder: Path) -> Row:
        """The test split's figures of a model as it is."""
        trial = trials.find({"model": name})
        if trial is None:
            trial = replace(bench.measure(folder, name), recipe={"model": name})
            trials.add(trial)
        print(f"test {name}: {_rates(trial)}", flush=True)
        return Row(name, None, (trial,))

    def continual(self, recipe: Recipe) -> Report:
        """The three categories patched in turn; after each, every category's test requests.

        A model that has been patched refuses more of the next category from the start, so from the
        second on β is chosen anew on development. Beside the chain stands the sum of three patches
        that were all made on the backbone.

        Returns:
            The report of ``patchc.evaluate``, as JSON values.
        """
        model = self.backbone
        patches, additive = [], []
        for number, category in enumerate(CATEGORIES):
            tuned = first = self.tuned
            step = recipe
            if number:
                tuned = self._derive(f"continual-{number}-derived", model, category)
                first = self._derive(f"together-{number}-derived", self.backbone, category)
                step = self._choose_beta(model, tuned, category, recipe)
            exact = self._built(f"continual-{number}", model, tuned, step, "ulp")
            added = self._built(f"together-{number}", self.backbone, first, recipe, "additive")
            patches.append(exact / "fix.patchc")
            additive.append(added / "fix.patchc")
            model = exact / "model"
        return self._in_turn(patches, additive)

    def _in_turn(self, turns: list[Path], together: list[Path]) -> Report:
        harmful = [
            json.loads(line) | {"kind": category}
            for category in CATEGORIES
            for line in self._requests("test", category)["harmful"].read_text().splitlines()
        ]
        requests = self._requests("test", CATEGORIES[0])

        def measure(out: Path) -> None:
            write_jsonl(out / "harmful.jsonl", harmful)
            report = patchc.evaluate(
                self.backbone,
                **requests | {"harmful": out / "harmful.jsonl"},
                turns=turns,
                together=together,
                out=out.with_suffix(".jsonl"),
                options=ASK,
            )
            (out / "report.json").write_text(json.dumps(json_values(report)))

        roots = [patchc.inspect(path).root for path in (*turns, *together)]
        inputs = {"roots": roots, "harmful": _digest(harmful), "options": ASK.max_new_tokens}
        folder = self._stages.run("turns", inputs, measure)
        found: Report = json.loads((folder / "report.json").read_text())
        return found

    def _built(self, name: str, model: Path, tuned: Path, recipe: Recipe, values: Values) -> Path:
        derived = self._stages.stamp(tuned.name)["inputs"]
        inputs = {"recipe": recipe.to_json(), "derived": derived}
        return self._stages.run(name, inputs, lambda out: _patch(model, tuned, recipe, out, values))

    def _choose_beta(self, model: Path, tuned: Path, category: str, recipe: Recipe) -> Recipe:
        report = patchc.sweep(
            model,
            se=tuned / "se",
            osm=tuned / "osm",
            **self._requests("dev", category),
            out=self._work / "development" / f"continual-{category}.jsonl",
            grid={"beta": [round(recipe.alpha * ratio, 2) for ratio in CONTINUAL_RATIOS]},
            recipe=recipe,
            options=ASK,
        )
        best = min(report.trials, key=lambda trial: by_sum(trial, report.base))
        print(f"continual {category}: {best.recipe} {_rates(best)}", flush=True)
        assert best.recipe is not None
        return Recipe.from_json(best.recipe)

    def _try(self, bench: Bench, recipe: AnyRecipe) -> Trial:
        patch = self._work / "trial.patchc"
        patch.unlink(missing_ok=True)
        patchc.build(self.backbone, **self._models(recipe), out=patch, recipe=recipe)
        return bench.measure_patch(self.backbone, patch)

    def _models(self, recipe: AnyRecipe) -> dict[str, Any]:
        se, osm = self.tuned / "se", self.tuned / "osm"
        return {"tuned": [se, osm]} if isinstance(recipe, MergeRecipe) else {"se": se, "osm": osm}

    def _requests(self, split: str, category: str) -> dict[str, Path]:
        return {
            "harmful": self.corpus / f"harmful-{category}-{split}.jsonl",
            "harmless": self.corpus / f"harmless-{split}.jsonl",
            "utility": self.corpus / f"questions-{split}.jsonl",
            "reference": REFERENCE,
        }

    def _derive(self, name: str, model: Path, category: str) -> Path:
        scores = SCORES if model == self.backbone else ("weight",)
        options = replace(DERIVE, scores=scores)
        pairs = self.corpus / f"pairs-{category}.jsonl"
        inputs = {"options": options.to_json(), "model": _stamp(model), "pairs": pairs.read_text()}
        return self._stages.run(
            name, inputs, lambda out: patchc.derive(model, pairs, out, options=options)
        )

    def _teach(self, out: Path) -> None:
        data = out / "lessons.jsonl"
        write_jsonl(data, lessons(LESSONS))
        teach(self.base, data, out / "model", TEACHING)


def main() -> None:
    """Run every stage that is not there yet, and write the tables."""
    experiment = Experiment(WORK)
    chosen, reports = experiment.choose(SAFEPATCHING)
    assert isinstance(chosen, Recipe)
    swept = reports[-1].trials
    best = next(trial for trial in swept if trial.recipe == chosen.to_json())
    draw_sweep(reports[0].base, swept, best, DOCS / "smollm2")
    bench = experiment.bench("test")
    rows: dict[str, list[Row]] = {}
    with open_trials(
        WORK / "test.jsonl", {"bench": bench.digest, "tuned": _stamp(experiment.tuned)}
    ) as trials:
        folders = {
            "backbone": experiment.backbone,
            "SE alone": experiment.tuned / "se",
            "OSM alone": experiment.tuned / "osm",
        }
        rows["models"] = [experiment.model_row(bench, trials, n, f) for n, f in folders.items()]
        for group, methods in (
            ("SafePatching", [SAFEPATCHING]),
            ("comparisons", comparisons()),
            ("ablations", ablations(chosen)),
            ("frontier", frontier(chosen)),
        ):
            rows[group] = [_row(experiment, bench, trials, method) for method in methods]
            write_report(DOCS / "smollm2" / "tables.md", rows, None, _spent(WORK))
    chain = experiment.continual(chosen)
    write_report(DOCS / "smollm2" / "tables.md", rows, chain, _spent(WORK))


def _spent(work: Path) -> float:
    """Seconds of all stages and trials that are kept, whichever run they come from."""
    files = [*work.rglob("*.jsonl"), *work.glob(f"*/{STAMP}")]
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return sum(line.get("seconds", 0.0) for line in lines)


def _row(experiment: Experiment, bench: Bench, trials: TrialFile, method: Method) -> Row:
    recipe, _ = experiment.choose(method)
    return experiment.test(bench, trials, method, recipe)


def _patch(model: Path, tuned: Path, recipe: Recipe, out: Path, values: Values) -> None:
    parts = {"se": tuned / "se", "osm": tuned / "osm"}
    patchc.build(model, **parts, out=out / "fix.patchc", recipe=recipe, values=values)
    if values == "ulp":
        patchc.apply(out / "fix.patchc", model, out=out / "model")


def _stamp(folder: Path) -> str:
    """What tells one model's contents from another's: size and time of its files."""
    files = sorted(folder.rglob("*.safetensors"))
    return " ".join(
        f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files
    )


def _digest(content: Any) -> str:
    return blake3(json.dumps(content).encode()).hexdigest()


def _sources(*names: str) -> list[str]:
    return [Path(__file__).with_name(name).read_text() for name in names]


def _rates(trial: Trial) -> str:
    utility = trial.utility.value if trial.utility else 0.0
    return (
        f"harm {trial.harmful.value:.3f} refusal {trial.over_refusal.value:.3f} "
        f"utility {utility:.3f} degenerate {trial.degenerate.value:.3f} "
        f"ppl {trial.perplexity or 0:.2f} {trial.patch_bytes:,} B"
    )


if __name__ == "__main__":
    main()
