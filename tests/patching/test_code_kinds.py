"""What counts as code: by name, by content, by settings; and what does not."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import py_compile
import re
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import tree
from update_files import write_update

import patchc
from patchc.patching.code_names import FOLDERS, SUFFIXES
from patchc.patching.code_names import NAMES as NAMES_OF_CODE
from patchc.patching.code_settings import KEYS


class Calls:
    """An object whose pickle calls a function."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("brewed",)


def _refused(tmp_path: Path, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> set[str]:
    """The files that apply refuses an update for, which verify with the model has to name too."""
    update = write_update(tmp_path, before, after)
    found = patchc.verify(update.patch, update.base).code.files
    if not found:
        patchc.apply(update.patch, update.base, out=tmp_path / "out")
        assert tree(tmp_path / "out") == tree(update.tuned)
        return set()
    with pytest.raises(patchc.CodeError) as refused:
        patchc.apply(update.patch, update.base, out=tmp_path / "out")
    assert all(repr(one.name) in str(refused.value) for one in found[:20])
    assert len(found) <= 20 or f"and {len(found) - 20} more" in str(refused.value)
    return {one.name for one in found}


NAMES = [
    "a.py", "deep/er/b.PY", "c.pyc", "d.pyd", "e.ipynb", "f.pth", "g.whl", "python311._pth",
    "a.sh", "b.BAT", "c.cmd", "d.ps1", "e.js", "f.rb", "g.pl", "h.lua", "i.vbs", "a.so",
    "b.so.1.2", "c.dll", "d.dylib", "e.exe", "f.wasm", "g.jar", "h.cubin", "i.engine", "a.cpp",
    "b.cu", "c.h", "training_args.bin", "a.pt", "b.pkl", "c.ckpt", "d.joblib", "e.pkl.gz",
    "f.nemo", "g.dpr", "pytorch_model.bin", "a.keras", "b.h5", "saved_model.pb", "Makefile",
    "Dockerfile", "Dockerfile.gpu", "CMakeLists.txt", "pyproject.toml", "setup.cfg",
    "requirements.txt", "requirements-dev.txt", "package.json", "docker-compose.yml",
    ".gitmodules", ".bashrc", ".envrc", ".pre-commit-config.yaml", "pyvenv.cfg", ".git/config",
    ".github/workflows/x.yml", ".githooks/commit", "hooks/post-merge", ".vscode/tasks.json",
    "h.py.", "i.py...", "evil.py:stream", "data.tar.gz", "code.tgz", "MLproject", "MLmodel",
    "dvc.yaml", "SConstruct", "Snakefile", "conda.yaml", ".pylintrc", "mypy.ini", ".Rprofile",
    ".mcp.json", ".claude/settings.json", "x/entry_points.txt", "a.rds", "b.nix", "c.ipy",
]  # fmt: skip

DATA = [
    "README.md", "LICENSE", "USE_POLICY.md", ".gitattributes", "config.json",
    "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja",
    "preprocessor_config.json", "params.json", "original/params.json", "modules.json",
    "1_Pooling/config.json", "image.png", "figures/a.jpg", "paper.pdf", "model.onnx_data",
    "chart.svg", "words.txt.gz", "make.md", "python.txt", "bin/notes.txt", "so.txt",
]  # fmt: skip


def test_names_of_code(tmp_path: Path) -> None:
    assert _refused(tmp_path, {}, dict.fromkeys(NAMES, b"x")) == set(NAMES)


def test_names_of_data(tmp_path: Path) -> None:
    assert _refused(tmp_path, {}, dict.fromkeys(DATA, b"{}")) == set()


def _written(write: object) -> bytes:
    stream = io.BytesIO()
    write(stream)  # type: ignore[operator]
    return stream.getvalue()


CALL = b"cbuiltins\nprint\n(S'brewed'\ntR."


def _zip(stream: io.BytesIO) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("data.pkl", b"x")


def _tar(stream: io.BytesIO) -> None:
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("data.pkl"))


def _without_mark(archive: bytes) -> bytes:
    """A tar archive as of 1979, which has only a checksum."""
    header = bytearray(archive[:512])
    header[257:265], header[148:156] = bytes(8), b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + archive[512:]


def _compiled(folder: Path) -> bytes:
    (folder / "one.py").write_text("a = 1\n")
    return Path(py_compile.compile(str(folder / "one.py"), str(folder / "one.pyc"))).read_bytes()


def test_contents_of_code(tmp_path: Path) -> None:
    """Each in a file whose name says nothing."""
    archive = _written(_zip)
    contents = {
        "script": b"#!/usr/bin/env python\n",
        "marked-script": b"\xef\xbb\xbf#!/bin/sh\n",
        "program": Path(sys.executable).read_bytes()[:4096],
        "windows-program": b"MZ\x90\0\3\0\0\0" + bytes(100),
        "mac-program": b"\xcf\xfa\xed\xfe" + bytes(100),
        "compiled": _compiled(tmp_path),
        "archive": archive,
        "text-and-archive": b'{"a": 1}\n' + archive,
        "old-archive": _written(_tar),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(20),
        "objects.npy": _written(lambda out: np.save(out, np.array([{}]), allow_pickle=True)),
        **{f"pickle-{n}": pickle.dumps(Calls(), protocol=n) for n in range(6)},
        **{f"nested-{n}": pickle.dumps([1, {"a": Calls()}], protocol=n) for n in range(6)},
        "call-and-rubbish": pickle.dumps(Calls(), protocol=0)[:-1] + b"\xff\xff",
        "call-after-a-long-text": b"S'" + b"a" * (2 << 20) + b"'\n0" + CALL,
        "call-after-a-long-blob": b"B\0\0 \0" + bytes(2 << 20) + b"0" + CALL,
        "call-after-other-numbers": b"I0x1\n0L0x10L\n0" + CALL,
        "call-after-other-letters": b"S'\xc3\xa9'\n0" + CALL,
        "call-in-a-second-pickle": b"I1\n." + CALL,
        "call-by-state": b"cbuiltins\nprint\nNb.",
        "objects-by-name.npy": b"\x93NUMPY\1\0\x44\0{'descr': 'object', ".ljust(78) + b"\n",
        "older-archive": _without_mark(_written(_tar)),
        "call-after-much": pickle.dumps([*range(30_000), Calls()], protocol=0),
    }
    files = {f"{name}.txt" if "." not in name else name: one for name, one in contents.items()}
    assert _refused(tmp_path, {}, files) == set(files)


def test_contents_of_data(tmp_path: Path) -> None:
    files = {
        "numbers.npy": _written(lambda out: np.save(out, np.arange(9.0))),
        "words.txt": b"cat\ndog\nowl\nin\nthe\n(\nno.\n",
        "text.txt": b"MZ is no program.\r\n#!/bin/sh is not its first line.\r\n",
        "list.txt": b"I am\nNo\nV\n.",
        "notes.txt": b"(beta) version\n",
        "more.txt": b"(optional)\nIn English (in short)\nno\n",
        "still-more.txt": b"(in English)\nfoo\n",
        "ranks.tiktoken": b"IQ== 0\nIg== 1\nIw== 2\nJA== 3\nJQ== 4\n",
        "structure.npy": _written(lambda out: np.save(out, np.zeros((2, 3), "datetime64[ms]"))),
        "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(300),
        "page.pdf": b"%PDF-1.7\n",
        "words.gz": gzip.compress(b"a"),
        "empty.txt": b"",
        "spm.model": b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02",
    }
    assert _refused(tmp_path, {}, files) == set()


MAP = {"auto_map": {"AutoModel": "own.Own"}}
OTHER = {"auto_map": {"AutoModel": "own.Own", "AutoConfig": "x.Y"}}
LAMBDA = {"class_name": "Lambda"}
DEEP = '{"auto_map": ' + "[" * 30_000 + "]" * 30_000 + "}"
SETTINGS = {
    "new": ({}, MAP),
    "deep": ({}, {"a": [{"b": {"c": MAP}}]}),
    "other": (MAP, OTHER),
    "twice": (MAP, '{"auto_map": {"AutoModel": "own.Own", "AutoModel": "x.Y"}}'),
    "again": (MAP, '{"auto_map": {"AutoModel": "own.Own"}, "auto_map": {"AutoModel": "x.Y"}}'),
    "spaced": ({}, '{"auto_map"\n\t : \n["x.Y", null]}'),
    "escaped": ({}, '{"\\u0061uto_map": "x.Y"}'),
    "half-escaped": ({}, '{"a\\\\\\\\": "\\\\\\u005fa"}'),
    "utf-16": ({}, json.dumps(MAP).encode("utf-16")),
    "nested": ({}, DEEP),
    "broken": ({}, '{"auto_map": {"AutoModel"'),
    "many": (MAP, "[" + ",".join([json.dumps(MAP)] * 299) + "]"),
    "pipelines": ({}, {"custom_pipelines": {"t": {"impl": "x.Y"}}}),
    "trust": ({}, {"trust_remote_code": True}),
    "hydra": ({}, {"tokenizer": {"_target_": "pydoc.pipepager"}}),
    "kernel": ({}, {"attn_implementation": "someone/kernel"}),
    "kernels": ({}, {"_attn_implementation": {"text_config": "someone/kernel@main"}}),
    "activation": ({}, {"activation_fn": "os.abort"}),
    "lambda": ({}, {"class_name": "Lambda", "config": {}}),
    "pipeline": ({}, {"_class_name": ["pipeline", "Pipeline"]}),
    "mlx": ({}, {"model_file": "model.py"}),
    "adapter": ({}, {"auto_mapping": {"base_model_class": "X", "parent_library": "antigravity"}}),
    "st/modules": ([], [{"idx": 0, "type": "custom.Transformer"}]),
    "nemo.yaml": ({}, "tokenizer:\n  _target_: os.system\n"),
    "nested.yml": ("auto_map:\n  AutoModel: own.Own\n", "auto_map:\n  AutoModel: x.Y\n"),
    "key.yaml": ({}, "? _target_\n: os.system\n"),
    "tags.yaml": ({}, "a: !!python/object/apply:os.system [id]\n"),
    "renamed-tags.yaml": ({}, "%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!name:os.system\n"),
    "escaped.yaml": ({}, '"\\x5ftarget_": os.system\n'),
    "joined.yaml": ({}, '? "_tar\\\nget_"\n: os.system\n'),
    "joined-otherwise.yaml": ({}, '? "_tar\\\rget_"\n: os.system\n'),
    "joined-again.yaml": ({}, '? "_tar\\\u2028get_"\n: os.system\n'),
    "escaped-tag.yaml": ({}, "a: !!%70ython/object/apply:os.system [id]\n"),
    "escaped-uri.yaml": ({}, "a: !<tag:yaml.org%2C2002:python/object/apply:os.system> [id]\n"),
    "speech.yaml": ({}, "a: !apply:os.system [id]\n"),
    "old-escapes": ('{"\\u0061": 1}', '{"\\u0061": 1, "\\u0061uto_map": "x.Y"}'),
    "layers": ([{"class_name": "Dense"}] * 99, [{"class_name": "Dense"}] * 99 + [LAMBDA]),
    "maps": ([MAP] * 299, [MAP] * 300),
    "experts": ({}, {"experts_implementation": "someone/kernel"}),
    "router/config": ({}, {"types": {"a": "custom.Transformer"}, "structure": {}}),
    "stream.json:x": ({}, MAP),
}  # fmt: skip
PLAIN_SETTINGS = {
    "same": ({**MAP, "vocab": 2}, {**MAP, "vocab": 3}),
    "same-in-another-form": (json.dumps(MAP, indent=4), json.dumps(MAP)),
    "gone": (MAP, {}),
    "off": ({}, {"trust_remote_code": False, "auto_map": {}, "custom_pipelines": None}),
    "values": ({}, {"name": "auto_map", "names": ["auto_map", "_target_"]}),
    "own": ({}, {"attn_implementation": "flash_attention_2", "activation_function": "gelu_new"}),
    "torch": ({}, {"activation_function": "torch.nn.modules.activation.Tanh"}),
    "classes": ({}, {"tokenizer_class": "LlamaTokenizer", "_class_name": "StableDiffusion"}),
    "adapter": ({}, {"parent_library": "transformers.models.llama.modeling_llama"}),
    "escapes": ({}, '{"a": "\\u00e9\\u20ac\\u003c", "b": "\\\\u0041"}'),
    "st/modules": ([], [{"type": "sentence_transformers.models.Pooling"}]),
    "types": ({}, {"type": "custom.Transformer"}),
    "vocab": ({}, dict.fromkeys(KEYS.keys() - {"trust_remote_code"}, 7)),
    "layers": ([{"class_name": "Dense"}] * 98, [{"class_name": "Dense"}] * 99),
    "router/config": ({}, {"types": {"a": "sentence_transformers.models.Dense"}}),
    "of-one": ({}, {"parent_library": None}),
    "plain.yaml": ({}, "vocab: 3\nactivation_function: gelu\n"),
}  # fmt: skip


def _files(settings: Mapping[str, tuple[object, object]], side: int) -> dict[str, bytes]:
    files = {}
    for name, pair in settings.items():
        value = pair[side]
        text = value if isinstance(value, str | bytes) else json.dumps(value)
        content = text if isinstance(text, bytes) else text.encode()
        files[name if "." in name else f"{name}.json"] = content
    return files


@pytest.mark.parametrize("both", [False, True], ids=["added", "changed"])
def test_settings_that_name_code(tmp_path: Path, both: bool) -> None:
    after = _files(SETTINGS, 1)
    assert _refused(tmp_path, _files(SETTINGS, 0) if both else {}, after) == set(after)


def test_settings_that_name_none(tmp_path: Path) -> None:
    before, after = (_files(PLAIN_SETTINGS, side) for side in (0, 1))
    assert _refused(tmp_path, before, after) == set()


def test_the_page_lists_what_counts() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/code-in-patches.md").read_text()
    tables = "\n".join(line for line in page.splitlines() if line.startswith("| "))
    listed = set(re.findall(r"`([^` ]+)`", tables))
    words = {one for table in (SUFFIXES, NAMES_OF_CODE, FOLDERS) for one in _words(table)}
    settings = {"type", "types", *KEYS}
    assert listed >= words | settings
    in_cells = {
        "modules.json",
        "config.json",
        "router_config.json",
        "requirements",
        ".txt",
        ".in",
        "/",
        "Lambda",
        "__lambda__",
    }
    owners = {"torch.nn", "transformers", "sentence_transformers"}
    assert listed == words | settings | in_cells | owners


def _words(table: Mapping[str, str]) -> list[str]:
    return [word for words in table.values() for word in words.split()]
