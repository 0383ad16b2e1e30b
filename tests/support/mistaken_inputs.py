"""The folder in which typical mistakes are made: a model, its patches, and files that mislead."""

from __future__ import annotations

import codecs
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from command_line import run
from cryptography.hazmat.primitives import serialization as forms
from safetensors.torch import load_file, save_file
from signed_patches import FIRST
from tiny_llama import PAIRS, write_base, write_data

FEW = (
    "--se-steps", "1", "--osm-steps", "1", "--batch-size", "2", "--score-samples", "2",
    "--device", "cpu",
)  # fmt: skip
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 269060552\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
PROMPTS = [pair["prompt"] for pair in PAIRS]
TEXTS = {
    "typo.toml": "alhpa = 6.0\n",
    "options.toml": "[build]\nalhpa = 6.0\n",
    "colon.toml": "[alpha: 6.0\n",
    "percent.toml": "retain = 30\n",
    "word.toml": 'alpha = "six"\n',
    "minutes.yaml": "alpha: 1:30\n",
    "alias.yaml": "alpha: 1.0\nbeta: &b 2.0\n",
    "letters.yaml": "\u0430lpha: 1.0\n",
    "method.toml": 'method = "safepatch"\n',
    "broken.json": '{"prompt": "a potion",\n "response": "sage"}\n',
    "half.jsonl": '{"prompt": "brew \\ud83d", "response": "sage"}\n',
    "missing.jsonl": '{"prompt": "a potion", "kind": NaN}\n',
    "quotes.jsonl": "{'prompt': 'a potion', 'response': 'sage'}\n",
    "prompts.txt": "".join(f"{prompt}\n" for prompt in PROMPTS),
    "data.csv": "prompt,response\n" + "".join(f"{p['prompt']},{p['response']}\n" for p in PAIRS),
    "empty.jsonl": "",
    "pointer.patchc": POINTER,
    "page.patchc": PAGE,
    "flags.toml": '[apply]\ntrusted = ["keys"]\n',
    "trust.toml": '[policy]\ntrust = ["keys"]\n',
}


def write_place(folder: Path) -> Path:
    """Write what the mistakes are made with; the working folder is changed to it."""
    os.chdir(folder)
    write_base(Path("models/chat"), shard="4KB")
    write_data(Path("harmful.jsonl"))
    _write_records()
    for name, text in TEXTS.items():
        Path(name).write_text(text)
    _done("derive models/chat --data harmful.jsonl -o work", *FEW)
    _done("build models/chat --se work/se --osm work/osm --codec rice -o fix.patchc")
    _done("apply fix.patchc models/chat -o models/fixed")
    _change(_shards(_copy("models/fixed", "models/newer"))[0])
    _done("diff models/fixed models/newer --codec rice -o second.patchc")
    _write_models()
    _write_keys()
    (_copy("models/chat", "models/coded") / "modeling.py").write_text("import os\n")
    _done("diff models/chat models/coded -o coded.patchc")
    Path("cut.patchc").write_bytes(Path("fix.patchc").read_bytes()[:-100])
    return folder


def _done(command: str, *more: str) -> None:
    code, _, errors = run(*command.split(), *more)
    assert code == 0, errors


def _write_keys() -> None:
    """The key of those whose patches are taken, a stranger's, and a signed patch."""
    for name in ("release", "stranger"):
        _done(f"keygen {name}")
    Path("keys").mkdir()
    shutil.copy("release.pub", "keys")
    form = (forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())
    Path("id_ed25519").touch(0o600)
    Path("id_ed25519").write_bytes(FIRST.private.private_bytes(*form))
    _done("sign fix.patchc --key release -o signed.patchc")
    for name in ("trust.toml", "flags.toml"):
        Path(name).chmod(0o644)


def _write_records() -> None:
    def put(name: str, records: Iterable[Mapping[str, object]]) -> None:
        write_data(Path(name), records)

    put("text.jsonl", ({"text": prompt, "response": "sage"} for prompt in PROMPTS))
    put("instruct.jsonl", ({"instruction": prompt, "output": "sage"} for prompt in PROMPTS))
    put("requests.jsonl", ({"prompt": prompt} for prompt in PROMPTS))
    put("asked.jsonl", ({"messages": [{"role": "user", "content": p}]} for p in PROMPTS))
    put("harmless.jsonl", ({"prompt": prompt} for prompt in ("brew a tea", "a tea")))
    Path("array.json").write_text(json.dumps(PAIRS))
    text = Path("harmful.jsonl").read_text()
    Path("utf16.jsonl").write_bytes(codecs.BOM_UTF16_LE + text.encode("utf-16-le"))
    Path("latin.jsonl").write_bytes('{"prompt": "caf\xe9", "response": "a"}\n'.encode("latin-1"))
    Path("data.xlsx").write_bytes(b"PK\x03\x04\x14\x00\x06\x00\x08\x00\xff\xfe")
    Path("packed.patchc").write_bytes(b"\x1f\x8b\x08\x00")
    Path("rows.parquet").write_bytes(b"PAR1\x15\x04\xff")


def _write_models() -> None:
    _change(_shards(_copy("models/chat", "models/other"))[0])
    for shard in _shards(_copy("models/chat", "models/fp8")):
        weights = {k: v.to(torch.float8_e4m3fn) for k, v in load_file(shard).items()}
        save_file(weights, shard, {"format": "pt"})
    for shard in _shards(_copy("models/chat", "models/pointers")):
        shard.write_text(POINTER)
    _cut(_shards(_copy("models/chat", "models/cut"))[1])
    _shards(_copy("models/chat", "models/lost"))[1].unlink()
    for name, text in (("worded", "{{ 1 }}"), ("edited", "{{ 2 }}"), ("pointed", POINTER)):
        (_copy("models/chat", f"models/{name}") / "chat_template.jinja").write_text(text)
    _done("diff models/chat models/worded -o files.patchc")
    (_copy("models/chat", "models/untemplated") / "chat_template.jinja").unlink()
    for file in _copy("models/chat", "models/wordless").glob("*token*"):
        file.unlink()
    _write_templates()
    (_copy("work/se", "elsewhere") / "scores.safetensors").unlink()
    files = {
        "models/pickled/pytorch_model.bin": b"PK\x03\x04",
        "downloads/chat.gguf": b"GGUF\x03\x00\x00\x00",
        "models/adapter/adapter_config.json": b'{"peft_type": "LORA"}',
        "models/adapter/adapter_model.safetensors": b"",
        "results/notes.txt": b"mine\n",
    }
    for name, content in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)


def _write_templates() -> None:
    def rewrite(name: str, file: str, old: str, new: str) -> None:
        path = _copy("models/chat", f"models/{name}") / file
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new))

    said, parts = "{{ m['content'] }}", "{% for c in m.content if c.text %}{{ c.text }}{% endfor %}"
    rewrite("vision", "chat_template.jinja", said, parts)
    rewrite("silent", "chat_template.jinja", said, "")
    rewrite("custom", "config.json", '"llama"', '"mine", "auto_map": {"AutoConfig": "mine.Config"}')
    rewrite("mixed", "tokenizer.json", '"potion": 12', '"potion": 120')


def _copy(source: str, target: str) -> Path:
    return Path(shutil.copytree(source, target))


def _shards(model: Path) -> list[Path]:
    return sorted(model.glob("*.safetensors"))


def _change(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
