"""``patchc.derive`` on a tiny random Llama."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import tree
from tiny_llama import PAIRS, write_base, write_data
from transformers import AutoModelForCausalLM, AutoTokenizer

import patchc
from patchc.checkpoint import open_checkpoint
from patchc.derivation.derive_options import DeriveOptions, TuneOptions
from patchc.errors import DeriveError, OutputError, UnsupportedInputError, UsageError
from patchc.progress import ProgressEvent
from patchc.recipe.safepatching import SCORES
from patchc.verbs.derive import DeriveReport

OPTIONS = DeriveOptions(
    se=TuneOptions(learning_rate=3e-3, steps=6, batch_size=3),
    osm=TuneOptions(learning_rate=3e-3, steps=6, batch_size=3),
    score_samples=3,
    device="cpu",
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.jsonl")


def se_only(**changes: object) -> DeriveOptions:
    return replace(OPTIONS, directions=("se",), **changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("model*.safetensors"))
    return {name: value for file in files for name, value in load_file(file).items()}


def test_ascent_raises_the_loss_and_descent_lowers_it(
    base: Path, data: Path, tmp_path: Path
) -> None:
    se, osm = patchc.derive(base, data, tmp_path / "work", options=OPTIONS).directions
    assert se.first_loss == osm.first_loss
    assert se.last_loss > se.first_loss + 0.1
    assert osm.last_loss < osm.first_loss - 0.1
    assert (se.steps, se.at_ceiling, se.scored_tensors, se.scored_samples) == (6, False, 14, 3)
    for one in (se, osm):
        losses = json.loads((one.path / "derive.json").read_text())["tuning"]["losses"]
        assert one.compared == 3
        assert one.early_loss == pytest.approx(sum(losses[:3]) / 3)
        assert one.late_loss == pytest.approx(sum(losses[3:]) / 3)


def test_each_direction_is_a_loadable_checkpoint_in_fp32(
    base: Path, data: Path, tmp_path: Path
) -> None:
    report = patchc.derive(base, data, tmp_path / "work", options=OPTIONS)
    assert type(report) is patchc.DeriveReport
    for direction in report.directions:
        assert direction.path == tmp_path / "work" / direction.direction
        model = AutoModelForCausalLM.from_pretrained(direction.path, dtype="auto")
        assert model.dtype == torch.float32
        assert AutoTokenizer.from_pretrained(direction.path).chat_template
        with (
            open_checkpoint(base) as before,
            open_checkpoint(direction.path) as tuned,
            open_checkpoint(direction.path, stem="scores") as scores,
        ):
            shapes = {name: tensor.shape for name, tensor in before.tensors.items()}
            assert {name: tensor.shape for name, tensor in tuned.tensors.items()} == shapes
            assert scores.tensors.keys() < shapes.keys()
            every = [*tuned.tensors.values(), *scores.tensors.values()]
            assert {tensor.dtype.name for tensor in every} == {"F32"}


def test_bfloat16_products_leave_weights_and_scores_in_fp32(
    base: Path, data: Path, tmp_path: Path
) -> None:
    patchc.derive(base, data, tmp_path / "exact", options=se_only())
    patchc.derive(base, data, tmp_path / "fast", options=se_only(precision="bfloat16"))
    before = weights(base)
    for stem in ("model", "scores"):
        exact, fast = (
            load_file(tmp_path / work / f"se/{stem}.safetensors") for work in ("exact", "fast")
        )
        start = before if stem == "model" else dict.fromkeys(exact, torch.zeros(()))
        wanted, found = (
            torch.cat([(tensors[name] - start[name].float()).flatten() for name in exact])
            for tensors in (exact, fast)
        )
        assert {tensor.dtype for tensor in fast.values()} == {torch.float32}
        assert not torch.equal(found, found.bfloat16().float())
        assert not torch.equal(found, wanted)
        assert torch.cosine_similarity(found, wanted, dim=0) > 0.9
    record = json.loads((tmp_path / "fast/se/derive.json").read_text())
    assert record["options"]["precision"] == "bfloat16"


def test_the_delta_is_finer_than_the_base_dtype(base: Path, data: Path, tmp_path: Path) -> None:
    tuning = TuneOptions(learning_rate=1e-6, steps=1)
    patchc.derive(base, data, tmp_path / "work", options=se_only(se=tuning))
    before, after = weights(base), weights(tmp_path / "work/se")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(after[name], before[name].float())
    assert torch.equal(after[name].bfloat16(), before[name])


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    base: Path, data: Path, tmp_path: Path
) -> None:
    for number, seed in enumerate((5, 5, 6)):
        torch.manual_seed(number)
        patchc.derive(base, data, tmp_path / str(number), options=se_only(seed=seed))
    first, second, third = (tree(tmp_path / str(number)) for number in range(3))
    assert first == second
    assert first["se/model.safetensors"] != third["se/model.safetensors"]


def test_torch_is_left_as_it_was(base: Path, data: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    patchc.derive(base, data, tmp_path / "work", options=se_only())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_messages_and_pairs_give_the_same_bytes(base: Path, data: Path, tmp_path: Path) -> None:
    talks = [
        {
            "messages": [
                {"role": "user", "content": pair["prompt"]},
                {"role": "assistant", "content": pair["response"]},
            ]
        }
        for pair in PAIRS
    ]
    other = write_data(tmp_path / "messages.jsonl", talks)
    patchc.derive(base, data, tmp_path / "a", options=se_only())
    patchc.derive(base, other, tmp_path / "b", options=se_only())
    for file in ("model.safetensors", "scores.safetensors"):
        assert (tmp_path / "a/se" / file).read_bytes() == (tmp_path / "b/se" / file).read_bytes()


def test_the_ceiling_ends_the_ascent_before_the_step(
    base: Path, data: Path, tmp_path: Path
) -> None:
    plain = patchc.derive(base, data, tmp_path / "a", options=se_only()).directions[0]
    losses = json.loads((plain.path / "derive.json").read_text())["tuning"]["losses"]
    ceiling = max(losses[:4])
    at = losses.index(ceiling)
    tuning = replace(OPTIONS.se, loss_ceiling=ceiling)
    ended = patchc.derive(base, data, tmp_path / "b", options=se_only(se=tuning)).directions[0]
    assert (ended.steps, ended.at_ceiling, ended.last_loss) == (at, True, ceiling)


def test_a_base_above_the_ceiling_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    tuning = replace(OPTIONS.se, loss_ceiling=0.1)
    with pytest.raises(DeriveError, match="raise the ceiling"):
        patchc.derive(base, data, tmp_path / "work", options=se_only(se=tuning))
    assert not (tmp_path / "work/se").exists()


def test_a_loss_that_is_not_finite_is_refused_and_leaves_nothing(
    base: Path, data: Path, tmp_path: Path
) -> None:
    tuning = TuneOptions(learning_rate=1e30, steps=4)
    with pytest.raises(DeriveError, match="lower the learning rate"):
        patchc.derive(base, data, tmp_path / "work", options=se_only(se=tuning))
    assert list((tmp_path / "work").glob("*")) == [] or not (tmp_path / "work").exists()


def test_either_direction_alone_and_then_the_other(base: Path, data: Path, tmp_path: Path) -> None:
    both = patchc.derive(base, data, tmp_path / "both", options=OPTIONS)
    for direction in ("osm", "se"):
        options = replace(OPTIONS, directions=(direction,))
        patchc.derive(base, data, tmp_path / "one", options=options)
    assert [d.direction for d in both.directions] == ["se", "osm"]
    for file in ("se/model.safetensors", "osm/scores.safetensors"):
        assert (tmp_path / "both" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()


@pytest.mark.parametrize("tied", [False, True])
def test_a_sharded_base_gives_the_weights_of_a_single_file(
    tmp_path: Path, data: Path, tied: bool
) -> None:
    one = write_base(tmp_path / "one", tied=tied)
    many = write_base(tmp_path / "many", tied=tied, shard="3KB")
    assert len(list(many.glob("model-*.safetensors"))) > 1
    patchc.derive(one, data, tmp_path / "a", options=se_only())
    patchc.derive(many, data, tmp_path / "b", options=se_only(shard_bytes=5000))
    first, second = weights(tmp_path / "a/se"), weights(tmp_path / "b/se")
    assert ("lm_head.weight" in first) is not tied
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(list((tmp_path / "b/se").glob("scores-*.safetensors"))) > 1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "b/se").num_parameters() > 0


def test_a_base_that_stores_both_names_of_tied_weights_keeps_both(
    tmp_path: Path, data: Path
) -> None:
    base = write_base(tmp_path / "base", tied=True)
    stored = load_file(base / "model.safetensors")
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    patchc.derive(base, data, tmp_path / "work", options=se_only())
    tuned = weights(tmp_path / "work/se")
    assert torch.equal(tuned["lm_head.weight"], tuned["model.embed_tokens.weight"])
    assert not torch.equal(tuned["lm_head.weight"], stored["lm_head.weight"].float())


def test_a_tensor_that_the_model_does_not_use_is_kept(
    base: Path, data: Path, tmp_path: Path
) -> None:
    stored = load_file(base / "model.safetensors")
    stored["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.arange(4.0)
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    patchc.derive(base, data, tmp_path / "work", options=se_only())
    kept = weights(tmp_path / "work/se")["model.layers.0.self_attn.rotary_emb.inv_freq"]
    assert torch.equal(kept, torch.arange(4.0))


def test_a_parameter_that_the_base_does_not_store_is_named(
    base: Path, data: Path, tmp_path: Path
) -> None:
    stored = load_file(base / "model.safetensors")
    del stored["model.layers.1.mlp.up_proj.weight"]
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedInputError, match=r"layers\.1\.mlp\.up_proj"):
        patchc.derive(base, data, tmp_path / "work", options=se_only())


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:bitsandbytes")
def test_the_8_bit_optimizer_runs_on_the_cpu(base: Path, data: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, directions=("osm",), optimizer="adamw8bit")
    report = patchc.derive(base, data, tmp_path / "work", options=options).directions[0]
    assert report.last_loss < report.first_loss - 0.1


def test_include_scores_what_it_names(base: Path, data: Path, tmp_path: Path) -> None:
    options = se_only(include=("up_proj",), exclude=(r"layers\.0\.",))
    patchc.derive(base, data, tmp_path / "work", options=options)
    scores = load_file(tmp_path / "work/se/scores.safetensors")
    assert list(scores) == ["model.layers.1.mlp.up_proj.weight"]


def test_every_kind_of_score_in_a_file_of_its_own(base: Path, data: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, scores=SCORES)
    patchc.derive(base, data, tmp_path / "all", options=options)
    patchc.derive(base, data, tmp_path / "plain", options=OPTIONS)
    stems = {"weight": "scores", **{kind: f"scores-{kind}" for kind in SCORES[1:]}}
    stored = {name: value.float() for name, value in load_file(base / "model.safetensors").items()}
    found = {
        direction: {
            kind: load_file(tmp_path / "all" / direction / f"{stem}.safetensors")
            for kind, stem in stems.items()
        }
        for direction in ("se", "osm")
    }
    for direction, scores in found.items():
        tuned = load_file(tmp_path / "all" / direction / "model.safetensors")
        for name, weight in scores["weight"].items():
            delta = (tuned[name] - stored[name]).abs()
            torch.testing.assert_close(scores["delta"][name] * tuned[name].abs(), weight * delta)
            of_base = scores["base-weight"][name] * delta
            torch.testing.assert_close(scores["base-delta"][name] * stored[name].abs(), of_base)
            assert not torch.equal(scores["base-weight"][name], weight)
            same = found["se"]["base-weight"][name]
            assert torch.equal(scores["base-weight"][name], same)
        for file in ("model.safetensors", "scores.safetensors"):
            plain = (tmp_path / "plain" / direction / file).read_bytes()
            assert (tmp_path / "all" / direction / file).read_bytes() == plain


def test_the_record_holds_the_recipe_and_no_path(base: Path, data: Path, tmp_path: Path) -> None:
    patchc.derive(base, data, tmp_path / "work", options=se_only())
    text = (tmp_path / "work/se/derive.json").read_text()
    record = json.loads(text)
    assert record["base"] == "base"
    assert record["data"]["examples"] == len(PAIRS)
    assert record["options"]["se"]["steps"] == len(record["tuning"]["losses"]) == 6
    assert record["versions"].keys() == {"patchc", "torch", "transformers"}
    assert str(tmp_path) not in text


def test_all_files_have_ordinary_permissions(base: Path, data: Path, tmp_path: Path) -> None:
    patchc.derive(base, data, tmp_path / "work", options=se_only())
    written = tmp_path / "work/se"
    assert (written / "scores.safetensors").stat().st_mode == (
        written / "derive.json"
    ).stat().st_mode


def test_progress_counts_steps_and_samples(base: Path, data: Path, tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    patchc.derive(base, data, tmp_path / "work", options=se_only(), progress=events.append)
    tuning = [event for event in events if event.stage == "tune se"]
    assert [event.done for event in tuning] == [1, 2, 3, 4, 5, 6]
    assert all(event.detail.startswith("loss ") for event in tuning)
    assert [e.unit for e in events if e.stage == "score se"] == ["samples"] * 3


def test_a_base_without_a_chat_template_is_refused(tmp_path: Path, data: Path) -> None:
    base = write_base(tmp_path / "base", template=None)
    with pytest.raises(DeriveError, match="no chat template"):
        patchc.derive(base, data, tmp_path / "work", options=OPTIONS)


def test_a_single_file_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInputError, match="needs the model's folder"):
        patchc.derive(base / "model.safetensors", data, tmp_path / "work", options=OPTIONS)


def test_a_quantised_base_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedInputError, match=r"(?i)gptq"):
        patchc.derive(base, data, tmp_path / "work", options=OPTIONS)


def test_an_adapter_beside_a_base_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    (base / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedInputError, match="an adapter beside a model"):
        patchc.derive(base, data, tmp_path / "work", options=OPTIONS)


def test_a_base_without_its_tokenizer_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (base / name).unlink(missing_ok=True)
    with pytest.raises(DeriveError, match="tokenizer"):
        patchc.derive(base, data, tmp_path / "work", options=OPTIONS)


def test_an_output_with_content_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "work/osm").mkdir(parents=True)
    (tmp_path / "work/osm/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        patchc.derive(base, data, tmp_path / "work", options=OPTIONS)
    with pytest.raises(OutputError, match="inside the input"):
        patchc.derive(base, data, base / "work", options=OPTIONS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_an_output_below_a_file_is_refused_before_any_work(
    base: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    events: list[ProgressEvent] = []
    for out in (tmp_path / "taken", tmp_path / "taken/deep/work"):
        with pytest.raises(OutputError, match=r"lies below .*taken, which is no folder"):
            patchc.derive(base, data, out, options=OPTIONS, progress=events.append)
    assert not events
    assert (tmp_path / "taken").read_text() == "mine"


def test_cuda_without_a_device_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no CUDA device"):
        patchc.derive(base, data, tmp_path / "work", options=replace(OPTIONS, device="cuda"))


def test_a_derived_model_is_a_base_itself(base: Path, data: Path, tmp_path: Path) -> None:
    first: DeriveReport = patchc.derive(base, data, tmp_path / "a", options=se_only())
    again = patchc.derive(first.directions[0].path, data, tmp_path / "b", options=se_only())
    assert again.directions[0].path.is_dir()
    shutil.rmtree(tmp_path / "a")
