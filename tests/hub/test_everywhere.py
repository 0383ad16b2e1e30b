"""Every verb and every command that takes a model takes its name on a hub, and leaves the cache."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from curve_keys_made import write_keys
from hub_caches import OTHER, contents, write_cached
from safetensors.torch import load_file, save_file
from tiny_checkpoints import read_model
from tiny_llama import PAIRS, make_tokenizer, write_base, write_data
from transformers import LlamaConfig, LlamaForSequenceClassification

import patchc
from patchc.cli import main, options

NOT_MODELS = {
    "out", "patch", "patches", "results", "signature", "trusted", "key", "detached", "data",
    "harmful", "harmless", "utility", "reference", "anchor", "generations", "turns", "together",
    "se_scores", "osm_scores", "scratch", "trace", "recipe_out", "path", "recipe", "work",
    "password",
}  # fmt: skip
"""Parameters that are paths of something else."""

VERBS = {
    name: one
    for module in (patchc, patchc.torch)
    for name in module.__all__
    if inspect.isfunction(one := getattr(module, name))
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_path_of_a_verb_is_a_model_or_something_else(verb: str) -> None:
    """A new verb that takes a model is decorated with ``takes_models``."""
    annotations = inspect.unwrap(VERBS[verb]).__annotations__
    paths = {name for name, text in annotations.items() if "PathLike" in str(text)} - {"return"}
    models = set(vars(VERBS[verb]).get("models", ()))
    assert paths - NOT_MODELS == models


@pytest.mark.parametrize("command", main._COMMANDS)
def test_a_command_reads_as_models_what_its_verb_takes_as_such(command: str) -> None:
    """A new option that takes a model has the parser ``options.model``."""
    name = command.replace("-", "_")
    function = getattr(import_module(f"patchc.cli.{name}"), name)
    parameters = inspect.signature(function, eval_str=True).parameters
    read = {name for name, one in parameters.items() if is_read_as_model(one)}
    assert read == set(vars(VERBS.get(name, run)).get("models", ()))
    shown = {one.name for one in main._load(command).params}
    assert ("download" in shown) == bool(read)


def is_read_as_model(parameter: inspect.Parameter) -> bool:
    described = getattr(parameter.annotation, "__metadata__", ())
    return any(getattr(one, "parser", None) is options.model for one in described)


class World:
    """A cache with a model, its next release, its components and a judge; patches; requests."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        self.base = write_base(folder / "base", shard="4KB")
        self.next = folder / "next"
        shutil.copytree(self.base, self.next)
        for shard in self.next.glob("*.safetensors"):
            weights = load_file(shard)
            moved = {name: (value.float() * 1.01).bfloat16() for name, value in weights.items()}
            save_file(moved, shard, metadata={"format": "pt"})
        write_data(folder / "data.jsonl", PAIRS * 16)
        write_cached(self.cache, "org/chat", self.base, shared=True)
        write_cached(self.cache, "org/chat", self.next, OTHER, "v2", shared=True)
        write_cached(self.cache, "org/judge", _write_judge(folder / "judge"))
        patchc.diff(self.base, self.next, out=folder / "fix.patchc")
        patchc.diff(self.next, self.base, out=folder / "back.patchc")
        write_keys(folder, "key.pem")


def _write_judge(folder: Path) -> Path:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=24, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, pad_token_id=0, bos_token_id=None,
        eos_token_id=2, num_labels=2, id2label={0: "answer", 1: "refusal"},
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def untouched(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder; the cache has to be as it was when the test ends."""
    for path in world.folder.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    shutil.copytree(world.base, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(world.cache))
    before = contents(world.cache)
    yield tmp_path
    assert contents(world.cache) == before


ASKED = "--harmful data.jsonl --harmless data.jsonl --max-new-tokens 2"
STEPS = "--se-steps 1 --osm-steps 1 --batch-size 2 --score-samples 2 --device cpu"
COMMANDS = {
    "diff": "diff org/chat org/chat@v2 -o out",
    "diff of a folder and a model": "diff copy org/chat@v2 -o out",
    "build": "build org/chat --recipe task-arithmetic --tuned org/chat@v2 -o out",
    "fold": "fold fix.patchc back.patchc --base org/chat -o out",
    "apply": "apply fix.patchc org/chat -o out",
    "apply with --repair-from": "apply fix.patchc copy --in-place --repair-from org/chat",
    "revert": "revert fix.patchc org/chat@v2 -o out",
    "verify": "verify fix.patchc org/chat",
    "status": "status org/chat fix.patchc",
    "sign-model": "sign-model org/chat --follow-links --key key.pem -o out",
    "derive": f"derive org/chat --data data.jsonl -o out {STEPS}",
    "evaluate": f"evaluate org/chat org/chat@v2 --judge hf:org/judge {ASKED} -o out",
    "evaluate with a patch": f"evaluate org/chat --patch fix.patchc {ASKED}",
    "sweep": f"sweep org/chat --recipe ties --tuned org/chat@v2 --density 0.5 {ASKED} -o out",
    "fit": f"fit org/chat --recipe ties --tuned org/chat@v2 --budget 1 {ASKED} -o out",
    "landscape": f"landscape org/chat --directions 1 --points 3 --plane-points 0 {ASKED} -o out",
    "fix": "fix org/chat --dry-run --harmful data.jsonl --harmless data.jsonl -o out",
}


@pytest.mark.parametrize("typed", COMMANDS.values(), ids=COMMANDS)
def test_a_command_works_from_a_snapshot_and_writes_real_files(untouched: Path, typed: str) -> None:
    code, _, errors = run(*typed.split())
    assert code in ((0, 15, 20) if typed.startswith(("fit", "fix")) else (0,)), errors
    assert "note: org/chat" in errors
    assert "taken from the hub's cache, revision " in errors
    assert not [path for path in untouched.rglob("*") if path.is_symlink()]


def test_a_patched_copy_is_what_it_should_be(world: World, untouched: Path) -> None:
    patchc.apply("fix.patchc", "org/chat", out="out")
    assert read_model(untouched / "out") == read_model(world.next)
    with pytest.raises(patchc.OutputError, match="a run in place would change it for all"):
        patchc.apply("fix.patchc", "org/chat", in_place=True)


@pytest.mark.usefixtures("untouched")
def test_a_model_is_signed_and_verified() -> None:
    patchc.sign_model("org/chat", key="key.pem", out="bundle", follow_links=True)
    report = patchc.verify_model(
        "org/chat", signature="bundle", trusted="key.pem.pub", follow_links=True
    )
    assert "config.json" in report.files


def test_components_from_the_cache(world: World, untouched: Path, tmp_path: Path) -> None:
    """Also in a file of options."""
    run("derive", "org/chat", "--data", "data.jsonl", "-o", "work", *STEPS.split())
    cache = tmp_path / "cache"
    shutil.copytree(world.cache, cache, symlinks=True)
    for part in ("se", "osm"):
        write_cached(cache, f"org/{part}", untouched / "work" / part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(cache))
        Path("options.toml").write_text('[build]\nse = "org/se"\nosm = "org/osm@main"\n')
        code, _, errors = run("build", "org/chat", "--config", "options.toml", "-o", "a.patchc")
    assert code == 0, errors
    patchc.build(world.base, se="work/se", osm="work/osm", out="b.patchc")
    assert patchc.inspect("a.patchc").root == patchc.inspect("b.patchc").root


def test_loaded_models_are_patched_from_the_cache(world: World, untouched: Path) -> None:
    expected = {name: one.data for name, one in read_model(world.next).items()}
    found = patchc.torch.patched_tensors("fix.patchc", "org/chat")
    assert {name: one.view(torch.uint8).numpy().tobytes() for name, one in found} == expected
    live: Any = {
        name: value
        for shard in world.base.glob("*.safetensors")
        for name, value in load_file(shard).items()
    }
    patchc.torch.apply_(live, untouched / "fix.patchc", base="org/chat")
    assert all(
        np.array_equal(value.view(torch.uint8).numpy().ravel(), np.frombuffer(expected[name], "u1"))
        for name, value in live.items()
    )


def test_a_path_with_a_dot_in_front_is_no_name(untouched: Path, world: World) -> None:
    cache = untouched / "other"
    write_cached(cache, "chat", world.base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(cache))
        for typed, code in (("chat", 0), ("./chat", 3), ("chat/", 3), ("org/../chat", 3)):
            assert run("verify", "fix.patchc", typed)[0] == code


def test_the_next_command_names_an_output_here(untouched: Path) -> None:
    _, out, _ = run("verify", "fix.patchc", "org/chat")
    assert "next: patchc apply fix.patchc org/chat -o chat-patched" in out
    assert untouched.is_dir()
