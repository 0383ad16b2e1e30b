"""Models of strangers: their code and pickles are never run, and absurd files give one error."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_llama import write_base, write_data
from typer.testing import CliRunner

import patchc
from patchc.cli.main import app
from patchc.errors import (
    CheckpointError,
    DeriveError,
    EvaluateError,
    PatchcError,
    UnsupportedInputError,
    UsageError,
)
from patchc.evaluation.judges import open_judge

SETS = ("--harmful", "asked.jsonl", "--harmless", "asked.jsonl")
FEW = ("--max-new-tokens", "3", "--device", "cpu")
PLANTED = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "planted"
class Model(LlamaForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
def generate(model, **settings):
    raise RuntimeError
"""
CLASSES = {"AutoConfig": "planted.Config", "AutoModelForCausalLM": "planted.Model"}
TOKENIZER = {"AutoTokenizer": ["planted.Tokenizer", "planted.Tokenizer"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_base(folder / "base")
    write_data(folder / "data.jsonl")
    write_data(folder / "asked.jsonl", [{"prompt": "brew a tea"}])
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and data, where Python finds no modules of strangers yet."""
    place = shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(place)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", tmp_path / "modules")
    return place


def change(file: str, values: dict[str, Any]) -> None:
    path = Path("base", file)
    stated = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**stated, **values}))


def plant(place: Path) -> Path:
    """Write code into the model's folder; returns the file that it makes when it is run."""
    marker = place / "marker"
    for name in ("planted.py", "custom_generate/generate.py", "modeling_llama.py"):
        path = Path("base", name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(PLANTED.format(marker=str(marker)))
    return marker


def answered_yes(*arguments: str) -> tuple[int, str]:
    """Run a command whose standard input says yes to whatever is asked."""
    result = CliRunner().invoke(app, arguments, input="y\n" * 100)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    "command",
    [
        ("derive", "base", "--data", "data.jsonl", "-o", "out"),
        ("evaluate", "base", *SETS, *FEW),
        ("fix", "base", *SETS, "-o", "out"),
    ],
)
@pytest.mark.parametrize("kind", ["architecture", "tokenizer"])
def test_planted_code_is_never_run(place: Path, command: tuple[str, ...], kind: str) -> None:
    brews = ({"prompt": f"brew {n}"} for n in range(100))
    if command[0] == "fix":
        write_data(Path("asked.jsonl"), brews)
    marker = plant(place)
    if kind == "architecture":
        change("config.json", {"model_type": "planted", "auto_map": CLASSES})
        named = "auto_map in config.json"
    else:
        change("config.json", {"model_type": "arcee"})  # one without a tokenizer of its own
        change("tokenizer_config.json", {"auto_map": TOKENIZER, "tokenizer_class": "Tokenizer"})
        named = "auto_map in tokenizer_config.json"
    code, told = answered_yes(*command)
    assert not marker.exists()
    assert code != 0
    assert f"{named} names code of the folder, and patchc runs no code of a model" in told
    assert "[y/N]" not in told


@pytest.mark.parametrize("planted", [True, False])
def test_classes_that_load_others_do_not_ask_for_them(place: Path, planted: bool) -> None:
    """RagTokenizer loads two tokenizers from folders below, and passes on nothing of the call."""
    inner = {"model_type": "arcee"}
    change("config.json", {"question_encoder": inner, "generator": inner})
    for name in ("question_encoder_tokenizer", "generator_tokenizer"):
        shutil.copytree("base", f"base/{name}", ignore=shutil.ignore_patterns("*_tokenizer"))
        if planted:
            change(f"{name}/tokenizer_config.json", {"auto_map": TOKENIZER})
            change(f"{name}/tokenizer_config.json", {"tokenizer_class": "Tokenizer"})
    change("tokenizer_config.json", {"tokenizer_class": "RagTokenizer"})
    marker = plant(place)
    code, told = answered_yes("evaluate", "base", *SETS, *FEW)
    assert not marker.exists()
    assert code == EvaluateError.exit_code
    wanted = "patchc runs no code of a model" if planted else "RagTokenizer is no tokenizer of one"
    assert wanted in told
    assert "[y/N]" not in told


def test_where_transformers_has_its_own_code_the_folders_is_not_used(place: Path) -> None:
    plain = answered_yes("evaluate", "base", *SETS, *FEW, "--json")
    marker = plant(place)
    change("config.json", {"auto_map": CLASSES})
    change("tokenizer_config.json", {"auto_map": TOKENIZER})
    change("generation_config.json", {"custom_generate": "base", "num_beams": 10**6})
    assert answered_yes("evaluate", "base", *SETS, *FEW, "--json") == plain
    assert plain[0] == 0
    assert not marker.exists()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", ["kernels-community/flash-attn2", "flash_attention_2"])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_config_chooses_no_kernel_of_a_hub(
    monkeypatch: pytest.MonkeyPatch, key: str, name: str
) -> None:
    def fetch(*_arguments: object, **_settings: object) -> None:
        pytest.fail("a kernel is fetched")

    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", fetch)
    change("config.json", {key: name, "_experts_implementation": name})
    assert answered_yes("evaluate", "base", *SETS, *FEW)[0] == 0


class Planted:
    """A pickle that makes a file as it is read."""

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self._marker,)


def _classifier(place: Path) -> Path:
    torch.manual_seed(0)
    shutil.copytree("base", "judge")
    config = transformers.LlamaConfig.from_pretrained("base")
    config.id2label = {0: "ANSWER", 1: "REFUSAL"}
    transformers.LlamaForSequenceClassification(config).save_pretrained("judge")
    return place / "judge"


def test_a_judge_is_safetensors_only(place: Path) -> None:
    judge, marker = _classifier(place), place / "marker"
    (judge / "pytorch_model.bin").write_bytes(pickle.dumps({"score.weight": Planted(marker)}))
    options = patchc.EvaluateOptions(judge=f"hf:{judge}", device="cpu")
    assert open_judge(options)(["a"], ["tea"])
    (judge / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"PyTorch pickle files are not supported.*safetensors"):
        open_judge(options)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"0": "ANSWER", "5": "REFUSAL"}, "does not number its 2 labels from 0 on"),
        ({"0": 1, "1": None}, "cannot tell which label means refused; .* one of 1, None"),
    ],
)
def test_a_judges_labels_are_checked(place: Path, labels: dict[str, Any], message: str) -> None:
    judge = _classifier(place)
    config = json.loads((judge / "config.json").read_text())
    (judge / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    with pytest.raises(UsageError, match=message):
        open_judge(patchc.EvaluateOptions(judge=f"hf:{judge}", device="cpu"))


def test_a_judges_code_is_not_run(place: Path) -> None:
    judge, marker = _classifier(place), plant(place)
    shutil.copy("base/planted.py", judge)
    config = json.loads((judge / "config.json").read_text())
    config |= {"model_type": "planted", "auto_map": CLASSES}
    (judge / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="patchc runs no code of a model"):
        open_judge(patchc.EvaluateOptions(judge=f"hf:{judge}", device="cpu"))
    assert not marker.exists()


@pytest.mark.usefixtures("place")
def test_an_adapter_beside_a_model_is_refused() -> None:
    change("adapter_config.json", {"base_model_name_or_path": "org/other", "peft_type": "LORA"})
    code, told = answered_yes("evaluate", "base", *SETS, *FEW)
    assert code == UnsupportedInputError.exit_code
    assert "adapter_config.json: an adapter beside a model" in told


SIZES = [
    ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1,000,000,000"),
    ({"num_hidden_layers": 500}, "num_hidden_layers is 500, and with these weights"),
    ({"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers"),
    ({"n_routed_experts": 10**9}, "n_routed_experts"),
    ({"num_hidden_layers": 60, "num_local_experts": 1000}, "layers times experts is 60,000"),
    ({"vocab_size": 10**12}, "vocab_size"),
    ({"vocab_size": 30}, "states other shapes than the tensors have"),
    ({"hidden_size": 10**9}, "hidden_size"),
    ({"head_dim": 10**10}, "head_dim"),
    ({"num_attention_heads": 0}, "ZeroDivisionError"),
    ({"num_labels": 10**9}, "num_labels"),
    ({"max_position_embeddings": 10**18}, "max_position_embeddings"),
    ({"dtype": "junk"}, "no attribute 'junk'"),
    ({"hidden_act": "junk"}, "junk"),
    ({"model_type": 7}, "model type `7`"),
    ({"auto_map": 7}, "cannot load the config"),
    ({"quantization_config": 7}, "cannot load"),
    (
        {"transformers_weights": "adapter_model.bin"},
        "transformers_weights names 'adapter_model.bin'",
    ),
]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("values", "message"), SIZES)
def test_an_absurd_config_gives_one_error(values: dict[str, Any], message: str) -> None:
    change("config.json", values)
    code, told = answered_yes("evaluate", "base", *SETS, *FEW)
    assert code == UnsupportedInputError.exit_code
    assert message in told


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "values", [{"num_hidden_layers": 500}, {"vocab_size": 30}, {"model_type": "musicgen"}]
)
def test_an_absurd_config_stops_derive(values: dict[str, Any]) -> None:
    change("config.json", values)
    command = ("derive", "base", "--data", "data.jsonl", "-o", "out", "--dry-run")
    assert answered_yes(*command)[0] == UnsupportedInputError.exit_code


@pytest.mark.usefixtures("place")
def test_numbers_of_a_config_need_not_be_finite() -> None:
    """Those of Mamba 2 and its kin have "time_step_limit": [0.0, Infinity]."""
    change("config.json", {"time_step_limit": [0.0, math.inf], "max_length": 10**30})
    command = ("derive", "base", "--data", "data.jsonl", "-o", "out", "--se-steps", "1")
    code, told = answered_yes(*command, "--directions", "se", "--retain", "1")
    assert code == 0, told
    written = json.loads(Path("out/se/config.json").read_text())
    assert (written["time_step_limit"], written["max_length"]) == ([0.0, math.inf], 10**30)


@pytest.mark.usefixtures("place")
def test_config_that_is_no_object_or_deep_is_told() -> None:
    for content in ("[]", '{"a":' * 100_000, "", "\xff"):
        Path("base/config.json").write_text(content, encoding="latin-1")
        with pytest.raises(PatchcError, match=r"config\.json"):
            patchc.evaluate(["base"], harmful="asked.jsonl", harmless="asked.jsonl")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "values",
    [
        {"max_length": 10**30, "num_beams": 10**6, "temperature": "hot"},
        {"eos_token_id": [10**30, "x", -1, 24, None, 2], "pad_token_id": 10**20},
    ],
)
def test_absurd_settings_for_generation_are_not_used(values: dict[str, Any]) -> None:
    plain = answered_yes("evaluate", "base", *SETS, *FEW, "--json")
    change("generation_config.json", values)
    assert answered_yes("evaluate", "base", *SETS, *FEW, "--json") == plain


def _of_tokenizer(change_it: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
    def write() -> None:
        path = Path("base/tokenizer.json")
        content = copy.deepcopy(json.loads(path.read_text()))
        change_it(content)
        path.write_text(json.dumps(content))

    return write


PIECE = {"SpecialToken": {"id": "absent", "type_id": 0}}
PANIC = {"type": "TemplateProcessing", "single": [PIECE], "pair": [], "special_tokens": {}}
BAD_REGEX = {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}
TOKENIZERS: dict[str, tuple[Callable[[], object], str]] = {
    "id beyond the embedding": (
        _of_tokenizer(lambda one: one["model"]["vocab"].update(brew=24)),
        "the tokenizer gives the token 24, and the model knows 24",
    ),
    "id of 32 bits": (
        _of_tokenizer(lambda one: one["model"]["vocab"].update(brew=4_000_000_000)),
        "the tokenizer gives the token 4000000000",
    ),
    "id below 0": (
        _of_tokenizer(lambda one: one["model"]["vocab"].update(brew=-1)),
        "cannot load the tokenizer",
    ),
    "a panic": (_of_tokenizer(lambda one: one.update(post_processor=PANIC)), "PanicException"),
    "an expression": (
        _of_tokenizer(lambda one: one.update(pre_tokenizer=BAD_REGEX)),
        "cannot load the tokenizer",
    ),
    "deep": (
        lambda: Path("base/tokenizer.json").write_text("[" * 100_000),
        "cannot load the tokenizer",
    ),
    "length": (
        lambda: change("tokenizer_config.json", {"model_max_length": "long"}),
        "tokenizer_config.json: model_max_length is 'long'; it must be a number",
    ),
    "class": (
        lambda: change("tokenizer_config.json", {"tokenizer_class": 7}),
        "cannot load the tokenizer",
    ),
}


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_absurd_tokenizer_gives_one_error(name: str) -> None:
    write, message = TOKENIZERS[name]
    write()
    of_derive = "derive", "base", "--data", "data.jsonl", "-o", "out"
    for command in (("evaluate", "base", *SETS, *FEW), of_derive):
        code, told = answered_yes(*command)
        kinds = UnsupportedInputError, EvaluateError, DeriveError
        assert code in [kind.exit_code for kind in kinds], told
        assert message in told


@pytest.mark.usefixtures("place")
def test_a_pipe_among_the_models_files_is_refused_at_once() -> None:
    os.mkfifo("base/added_tokens.json")
    code, told = answered_yes("evaluate", "base", *SETS, *FEW)
    assert code == CheckpointError.exit_code
    assert "base/added_tokens.json: cannot read: it is a pipe, and a file is needed" in told


@pytest.mark.usefixtures("place")
def test_a_reference_beyond_the_embedding_is_told() -> None:
    _of_tokenizer(lambda one: one["model"]["vocab"].update(sage=24))()
    Path("text.txt").write_text("sage with ash")
    code, told = answered_yes("evaluate", "base", *SETS, *FEW, "--reference", "text.txt")
    assert code == UnsupportedInputError.exit_code
    assert "the tokenizer gives the token 24" in told


def test_one_module_asks_transformers_and_none_reads_pickles() -> None:
    package = Path(patchc.__file__).parent
    asking = re.compile(
        r"\.from_pretrained\(|\.from_config\(|torch\.load\(|allow_pickle|np\.load\("
    )
    found = [one.name for one in package.rglob("*.py") if asking.search(one.read_text())]
    assert found == ["from_folder.py"]
