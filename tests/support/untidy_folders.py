"""Model folders as people leave them: stale shards, lost indexes, other formats beside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_checkpoints import Raw, Tensors, write_file, write_index, write_model

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
    + b"\nsize 12345\n"
)
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
_META = {"format": "pt"}
_MTP = {"mtp.fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4)}


@dataclass(frozen=True)
class Folder:
    """A folder with a model's side files, to put weights into.

    Attributes:
        path: the folder.
        right: the weights that a loader should find.
        wrong: other weights of the same names, dtypes and shapes.
    """

    path: Path
    right: Tensors
    wrong: Tensors

    def single(self, name: str = SINGLE, tensors: Tensors | None = None) -> None:
        """Write one file."""
        write_file(self.path / name, tensors or self.right, _META)

    def shards(self, tensors: Tensors | None = None, count: int = 2) -> None:
        """Write shards with an index; the tensors are dealt out in turn."""
        write_model(self.path, tensors or self.right, count)

    def halves(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tensors of each of two shards."""
        names = list(self.right)
        return ({n: self.right[n] for n in names[::2]}, {n: self.right[n] for n in names[1::2]})

    def index(self, **more: str) -> None:
        """Write the index of two shards anew, with other entries beside or in place of its own."""
        first, second = self.halves()
        write_index(self.path, dict.fromkeys(first, ONE) | dict.fromkeys(second, TWO) | more)

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""
        (self.path / name).parent.mkdir(exist_ok=True)
        (self.path / name).write_bytes(content)

    def configure(self, **entries: object) -> None:
        """Put entries into config.json."""
        path = self.path / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    def pickle(self, name: str = "pytorch_model.bin") -> None:
        """Write the wrong weights as torch does."""
        torch.save({name: _tensor(value) for name, value in self.wrong.items()}, self.path / name)

    def adapter(self) -> None:
        """Write a LoRA adapter that names a base elsewhere."""
        write_file(
            self.path / "adapter_model.safetensors",
            {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": np.ones((2, 16), "f4")},
            _META,
        )
        config = {"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing", "r": 2}
        self.write("adapter_config.json", json.dumps(config).encode())


def _tensor(value: Any) -> torch.Tensor:
    assert isinstance(value, Raw)
    assert value.dtype == "BF16"
    return torch.frombuffer(bytearray(value.data), dtype=torch.bfloat16).reshape(value.shape)


@dataclass(frozen=True)
class Case:
    """A kind of folder, and what becomes of it.

    Attributes:
        make: puts the weights into it.
        left: the files that patchc names as left aside.
        refused: what patchc says where it refuses; None where it takes what is loaded.
        loads: whether transformers loads it.
    """

    make: Callable[[Folder], None]
    left: tuple[str, ...] = ()
    refused: str | None = None
    loads: bool = True


def _both(folder: Folder, shards_hold: str) -> None:
    folder.shards(getattr(folder, shards_hold))
    folder.single()


def _index_of_single(folder: Folder) -> None:
    folder.single()
    write_index(folder.path, dict.fromkeys(folder.right, SINGLE))


def _index_of_single_and_more(folder: Folder) -> None:
    folder.single()
    folder.single("extra.safetensors", _MTP)
    places = dict.fromkeys(folder.right, SINGLE) | dict.fromkeys(_MTP, "extra.safetensors")
    write_index(folder.path, places)


def _index_of_nothing(folder: Folder) -> None:
    folder.single("mine.safetensors")
    write_index(folder.path, {})


def _index_of_nothing_beside(folder: Folder) -> None:
    folder.single()
    write_index(folder.path, {})


def _ten_before_nine(folder: Folder) -> None:
    """Files are loaded in the order of their names as text."""
    nine, ten, name = "s-9.safetensors", "s-10.safetensors", next(iter(folder.right))
    folder.single(ten, folder.right | {name: folder.wrong[name]})
    folder.single(nine, {name: folder.right[name]})
    write_index(folder.path, dict.fromkeys(folder.right, ten) | {name: nine})


def _without(name: str) -> Callable[[Folder], None]:
    def make(folder: Folder) -> None:
        folder.shards()
        (folder.path / name).unlink()

    return make


def _ghost(folder: Folder) -> None:
    folder.shards()
    folder.index(**{"model.layers.9.mlp.up_proj.weight": TWO})


def _ghost_of_the_model(folder: Folder) -> None:
    """Nothing holds a tensor of the model, which loaders then make up."""
    first, second = folder.halves()
    del first[next(iter(first))]
    folder.index()
    folder.single(ONE, first)
    folder.single(TWO, second)


def _wrong_place(folder: Folder) -> None:
    folder.shards()
    folder.index(**{next(iter(folder.right)): TWO})


def _overlay(name: str, values: str = "wrong") -> Callable[[Folder], None]:
    """A third file that holds two tensors anew, where the index places them."""

    def make(folder: Folder) -> None:
        names = list(folder.right)[:2]
        anew = {one: getattr(folder, values)[one] for one in names}
        folder.shards()
        folder.single(name, anew)
        folder.index(**dict.fromkeys(names, name))

    return make


def _overlay_that_the_index_passes_over(folder: Folder) -> None:
    """The last file holds a tensor too, and the index places only another one there."""
    folder.shards()
    name = next(iter(folder.right))
    folder.single("z.safetensors", {name: folder.wrong[name], **_MTP})
    folder.index(**dict.fromkeys(_MTP, "z.safetensors"))


def _more_than_the_index(folder: Folder) -> None:
    first, second = folder.halves()
    folder.index()
    folder.single(ONE, first)
    folder.single(TWO, second | _MTP)


def _beside(name: str, hold: str = "mtp", shards: int = 1) -> Callable[[Folder], None]:
    def make(folder: Folder) -> None:
        folder.shards(count=shards)
        folder.single(name, _MTP if hold == "mtp" else getattr(folder, hold))

    return make


def _content(name: str, content: bytes, shards: int = 1) -> Callable[[Folder], None]:
    """A file with other content, in place of what is there or beside it."""

    def make(folder: Folder) -> None:
        folder.shards(count=shards)
        folder.write(name, content)

    return make


def _named(name: str, path: str | None = None) -> Callable[[Folder], None]:
    """The configuration names the file of the weights, and the usual one holds others."""

    def make(folder: Folder) -> None:
        folder.single(tensors=folder.wrong)
        (folder.path / name).parent.mkdir(exist_ok=True)
        if path is None or not path.startswith(".."):
            folder.single(path or name)
        folder.configure(transformers_weights=name)

    return make


def _named_index(folder: Folder) -> None:
    folder.shards()
    (folder.path / INDEX).rename(folder.path / "mine.safetensors.index.json")
    folder.single(tensors=folder.wrong)
    folder.configure(transformers_weights="mine.safetensors.index.json")


def _named_pickle(folder: Folder) -> None:
    folder.single()
    folder.pickle()
    folder.configure(transformers_weights="pytorch_model.bin")


def _named_and_missing(folder: Folder) -> None:
    folder.single()
    folder.configure(transformers_weights="mine.safetensors")


def _pickle_alone(folder: Folder) -> None:
    folder.pickle()


def _with_adapter(folder: Folder) -> None:
    folder.single()
    folder.adapter()


def _adapter_without_config(folder: Folder) -> None:
    _with_adapter(folder)
    (folder.path / "config.json").unlink()


def _adapter_alone(folder: Folder) -> None:
    folder.adapter()
    (folder.path / "config.json").unlink()


def _folder_of_that_name(folder: Folder) -> None:
    folder.shards()
    (folder.path / SINGLE).mkdir()


def _link_to_nowhere(folder: Folder) -> None:
    folder.shards()
    (folder.path / SINGLE).symlink_to("nowhere")


def _links(folder: Folder) -> None:
    """As in the cache of a hub."""
    folder.shards()
    blobs = folder.path.with_name(f"{folder.path.name}-blobs")
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.path.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), folder.path))


def _tied(folder: Folder) -> None:
    """The output's weights are the embedding's, and stored once more."""
    folder.configure(tie_word_embeddings=True)
    folder.single(tensors={**folder.right, "lm_head.weight": folder.right[EMBEDDING]})


def _distributed(folder: Folder) -> None:
    folder.single()
    folder.single("shard-00001-model-00001-of-00001.safetensors", folder.wrong)


EMBEDDING = "model.embed_tokens.weight"

CASES = {
    "one file": Case(Folder.single),
    "shards": Case(Folder.shards),
    "links to blobs": Case(_links),
    "both, with equal tensors": Case(lambda f: _both(f, "right"), (ONE, TWO, INDEX)),
    "both, with other tensors": Case(lambda f: _both(f, "wrong"), (ONE, TWO, INDEX)),
    "index of the one file": Case(_index_of_single),
    "index of the one file and another": Case(
        _index_of_single_and_more, ("extra.safetensors", INDEX)
    ),
    "index of nothing": Case(_index_of_nothing, refused="weight_map is empty", loads=False),
    "index of nothing beside one file": Case(_index_of_nothing_beside, (INDEX,)),
    "ten before nine": Case(_ten_before_nine),
    "shard missing": Case(_without(TWO), refused=f"{TWO}: no such file", loads=False),
    "index lost": Case(_without(INDEX), refused=f"shards without their index.*{ONE}", loads=False),
    "ghost entry": Case(_ghost),
    "ghost entry of a tensor that is needed": Case(_ghost_of_the_model),
    "entry for another listed file": Case(_wrong_place),
    "overlay that is loaded last": Case(_overlay("overlay.safetensors")),
    "overlay that is loaded first": Case(
        _overlay("a.safetensors"), refused=rf"stored in a\.safetensors, where .* in {ONE}"
    ),
    "overlay with equal bytes": Case(_overlay("a.safetensors", "right")),
    "copy that the index passes over": Case(
        _overlay_that_the_index_passes_over, refused=rf"stored in {ONE}, where .* z\.safetensors"
    ),
    "tensor that the index omits": Case(_more_than_the_index),
    "draft head": Case(_beside("mtp.safetensors"), ("mtp.safetensors",)),
    "draft head beside shards": Case(_beside("mtp.safetensors", shards=2), ("mtp.safetensors",)),
    "shards of another count": Case(
        _beside("model-00001-of-00005.safetensors", "wrong", 2),
        ("model-00001-of-00005.safetensors",),
    ),
    "variant": Case(_beside("model.fp16.safetensors", "wrong"), ("model.fp16.safetensors",)),
    "Mistral's layout beside": Case(
        _beside("consolidated.safetensors", "wrong", 2), ("consolidated.safetensors",)
    ),
    "Mistral's layout alone": Case(
        lambda f: f.single("consolidated.safetensors"),
        refused=r"it holds consolidated\.safetensors",
        loads=False,
    ),
    "pickle beside": Case(
        lambda f: (f.single(), f.pickle())[0], ("pytorch_model.bin",)
    ),
    "pickle alone": Case(_pickle_alone, refused=r"pytorch_model\.bin: PyTorch pickle"),
    "GGUF beside": Case(_content("model-Q4.gguf", b"GGUF\3\0\0\0"), ("model-Q4.gguf",)),
    "GGUF alone": Case(
        lambda f: f.write("model.gguf", b"GGUF\3\0\0\0"), refused=r"model\.gguf: GGUF", loads=False
    ),
    "adapter beside": Case(_with_adapter, ("adapter_config.json", "adapter_model.safetensors")),
    "adapter beside, no configuration": Case(
        _adapter_without_config, refused=r"adapter_config\.json: a LoRA adapter", loads=False
    ),
    "adapter alone": Case(_adapter_alone, refused="a LoRA adapter is not supported", loads=False),
    "configuration names a file": Case(_named("mine.safetensors"), (SINGLE,)),
    "configuration names an index": Case(_named_index, (SINGLE,)),
    "configuration names a file below": Case(
        _named("sub/mine.safetensors"), refused=r"sub/mine\.safetensors', which is no file of this"
    ),
    "configuration names a file outside": Case(
        _named("../mine.safetensors", ".."), refused="which is no file of this", loads=False
    ),
    "configuration names a pickle": Case(
        _named_pickle, refused=r"pytorch_model\.bin', which is no safetensors file", loads=False
    ),
    "configuration names a missing file": Case(
        _named_and_missing, refused=r"mine\.safetensors', and there is no such file", loads=False
    ),
    "weights are an LFS pointer": Case(
        _content(SINGLE, POINTER), refused=rf"{SINGLE}.*Git LFS pointer", loads=False
    ),
    "a shard is an LFS pointer": Case(
        _content(TWO, POINTER, 2), refused=rf"{TWO}.*Git LFS pointer", loads=False
    ),
    "weights are a web page": Case(
        _content(SINGLE, PAGE), refused=rf"{SINGLE}.*a web page", loads=False
    ),
    "index is an LFS pointer": Case(
        _content(INDEX, POINTER, 2), refused=rf"{INDEX}.*Git LFS pointer", loads=False
    ),
    "index is a web page": Case(
        _content(INDEX, PAGE, 2), refused=rf"{INDEX}.*a web page", loads=False
    ),
    "index beside one file is an LFS pointer": Case(_content(INDEX, POINTER), (INDEX,)),
    "configuration is an LFS pointer": Case(
        _content("config.json", POINTER), refused=r"config\.json.*Git LFS pointer", loads=False
    ),
    "weights are empty": Case(_content(SINGLE, b""), refused=f"{SINGLE}.*empty", loads=False),
    "folder of the one file's name": Case(_folder_of_that_name),
    "link of the one file's name to nowhere": Case(_link_to_nowhere, (SINGLE,)),
    "other case": Case(_beside("Model.Safetensors", "wrong"), ("Model.Safetensors",)),
    "hidden copy": Case(_beside("._model.safetensors", "wrong"), ("._model.safetensors",)),
    "model in a folder below": Case(
        _beside("checkpoint-500/model.safetensors", "wrong"), ("checkpoint-500/model.safetensors",)
    ),
    "tied weights stored twice": Case(_tied),
    "distributed checkpoint": Case(
        _distributed, refused=r"shard-00001-model-\S+: a part of a distributed", loads=False
    ),
}  # fmt: skip
