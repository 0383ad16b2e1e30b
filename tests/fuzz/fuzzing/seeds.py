"""Writes the seeds of all targets to corpus/: golden patches, and small inputs of each form.

Run as ``PYTHONPATH=tests/fuzz:tests/support python -m fuzzing.seeds``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
from conditional_cases import change, chosen_words
from signed_patches import FIRST
from tiny_checkpoints import Raw, file_bytes

from fuzzing.mutation import bundle, patch_file
from fuzzing.target import CORPUS
from fuzzing.targets import checkpoint, components, results, signatures
from fuzzing.targets.chunks import DTYPES, Head, groups_of, words_of
from patchc.formats.codecs import ADDITIVE, CONDITIONAL, RICE
from patchc.formats.codecs.additive_values import ComponentEntries
from patchc.formats.codecs.protocol import ExactChanges
from patchc.recipe import MergeRecipe, Override, Recipe, recipe_text

GOLDEN = Path(__file__).parents[2] / "formats" / "golden"
Seeds = dict[str, bytes]


def patch_reader() -> Seeds:
    """The golden patches."""
    return {path.stem: path.read_bytes() for path in sorted(GOLDEN.glob("*.patchc"))}


def screens() -> Seeds:
    """Patches that say much about themselves."""
    said = {
        "kind": "build",
        "tool": {"name": "patchc", "version": "0.1.0"},
        "recipe": Recipe().to_json(),
        "annotation": {"name": "a fix", "note": "It refuses.\nIt is kind."},
        "coded": {"positions": 20, "values": 10},
        "entropy": {"positions": 15, "values": 8},
        "statistics": {"w": {"changed": 3}},
    }
    fold = {"kind": "fold", "folded": [{"root": "0" * 64, "result": "1" * 64}]}
    files = patch_reader()
    told = {"minimal": said, "masks": fold | {"tool": {"name": "x"}}, "additive-int8": {}}
    changed = {
        name: patch_file.with_text(files[name], lambda old, new=new: _joined(old, new))
        for name, new in told.items()
    }
    return changed | {"update": files["update"], "signed": files["signed"]}


def _joined(old: bytes, new: dict[str, object]) -> bytes:
    return json.dumps(json.loads(old) | new).encode()


def _changes(head: Head, seed: int) -> ExactChanges:
    rng = np.random.default_rng(seed)
    base = words_of(head)
    chosen = chosen_words(rng, head.words, (0.02, 0.3)[seed % 2], "anywhere")
    result = change(rng, head.dtype, base, chosen, ("small", "mixed", "spread")[seed % 3])
    positions = np.flatnonzero(base != result).astype(np.uint32)
    half = 1 << (head.dtype.word_bits - 1)

    def order(word: int) -> int:
        return word ^ (half - 1) if head.dtype.total_order and word & half else word

    pairs = zip(base[positions].tolist(), result[positions].tolist(), strict=True)
    steps = [(order(new) - order(old) + half) % (2 * half) - half for old, new in pairs]
    groups = groups_of(head) if head.flags & 1 else None
    return ExactChanges(base, positions, np.array(steps, np.int64), head.dtype, groups)


def rice() -> Seeds:
    """Bodies of each dtype, in one tile and in two."""
    found = {}
    for number, dtype in enumerate(DTYPES):
        made = _changes(Head(dtype, 0, 300, 0, number), number)
        words = 300 if number % 2 else 70_000
        body = RICE.encode(made.positions, made.steps, words, dtype.word_bits).body
        head = Head(dtype, 0, words, len(made.positions), number)
        found[dtype.name] = head.pack(body)
    return found


def additive() -> Seeds:
    """Bodies of both types of values."""
    found = {}
    for flags, name in ((2, "bf16"), (3, "int8")):
        at = np.array([1, 5, 6, 280], np.uint32)
        values = np.array([1, 2, 3, 4], np.int8 if flags & 1 else np.uint16)
        absmax = np.array([0.5] if flags & 1 else [], np.float32)
        parts = [ComponentEntries(one, at + one, values, absmax) for one in (0, 1)]
        touched = len(set(at.tolist()) | set((at + 1).tolist()))
        for words in (300, 70_000):
            head = Head(DTYPES[0], flags, words, touched, 0)
            found[f"{name}-{words}"] = head.pack(ADDITIVE.encode(parts, words))
    return found


def conditional() -> Seeds:
    """Bodies of each dtype, with groups and without."""
    found = {}
    for number in range(4 * len(DTYPES)):
        dtype = DTYPES[number % len(DTYPES)]
        flags = number // len(DTYPES) & 1
        head = Head(dtype, flags, (60, 300, 600)[number % 3], 0, number)
        made = _changes(head, number)
        entries = len(made.positions)
        whole = Head(dtype, flags, head.words, entries, number)
        found[f"{number:02}-{dtype.name}"] = whole.pack(CONDITIONAL.encode(made).body)
    return found


def checkpoints() -> Seeds:
    """One file and two shards, with tensors of several dtypes."""
    one = {"a.weight": Raw("BF16", (4, 2), bytes(16)), "b": Raw("F32", (), bytes(4))}
    two = {
        "c": Raw("F4", (2, 4), bytes(4)),
        "d": Raw("U8", (0,), b""),
        "e": Raw("I64", (1,), b"12345678"),
    }
    single, first, second = (
        file_bytes(one | two, {"format": "pt"}), file_bytes(one), file_bytes(two, {"format": "pt"}),
    )  # fmt: skip
    shards = dict.fromkeys(one, checkpoint.NAMES[2]) | dict.fromkeys(two, checkpoint.NAMES[3])
    index = json.dumps({"metadata": {"total_size": 32}, "weight_map": shards}).encode()
    quantised = json.dumps({"quantization_config": {"quant_method": "gptq"}}).encode()
    folders = {
        "single": {"model.safetensors": single, "config.json": b'{"model_type": "llama"}'},
        "shards": dict(zip(checkpoint.NAMES[1:4], (index, first, second), strict=True)),
        "quantised": {"model.safetensors": first, "config.json": quantised},
        "component": {"component.json": b"{}"},
    }
    return {name: bundle.pack(files, checkpoint.NAMES) for name, files in folders.items()}


def of_signatures() -> Seeds:
    """The golden envelope in its file and beside it, a key, and a bundle."""
    envelope = signatures.parts()[1]
    digest = sha256(b"x")
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": sha256(digest.digest()).hexdigest()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "resources": [
                {"name": "config.json", "algorithm": "sha256", "digest": digest.hexdigest()}
            ],
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
        },
    }  # fmt: skip
    coded = base64.b64encode(json.dumps(statement).encode()).decode()
    bundle_text = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "0" * 64}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": coded, "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": base64.b64encode(bytes(71)).decode(), "keyid": ""}],
        },
    }  # fmt: skip
    return {
        "in-file": b"\0" + envelope,
        "beside": b"\1" + envelope + b"\n",
        "key": b"\2" + FIRST.pem,
        "bundle": b"\3" + json.dumps(bundle_text).encode(),
    }


def policies() -> Seeds:
    """A policy alone, and one among options."""
    own = b'trusted = ["keys"]\nrequire = 1\nallow_code = false\n'
    return {"alone": b"\0" + own, "options": b"\1[apply]\nthreads = 2\n[policy]\n" + own}


def recipes() -> Seeds:
    """Recipes of several methods, in both languages."""
    own = Recipe(seed=7, overrides=(Override("mlp", alpha=2.0), Override(r"\.0\.", retain=0.5)))
    ties = MergeRecipe("ties", weight=0.5, density=0.2)
    yaml = (
        b"method: safepatching\nretain: 0.3\ntop_se: 1.0e-1\nrescale: true\ninclude: [a, 'b']\n"
        b"overrides:\n  - match: 'layers\\.(0|1)\\.'\n    alpha: 2\n    beta: 1.5\n"
    )
    return {
        "safepatching": b"\0" + recipe_text(own).encode(),
        "ties": b"\0" + recipe_text(ties).encode(),
        "yaml": b"\1" + yaml,
        "merge-yaml": b"\1method: dare\nweight: 0.5\ndensity: 0.2\nseed: 18446744073709551615\n",
    }


def expressions() -> Seeds:
    """Usual ones, and some that Python's own engine does not finish."""
    return {
        "layers": rb"layers\.(0|1)\.(mlp|self_attn)\.",
        "any": b".*weight$",
        "ways": b"^(?:.*a)*(a|aa)+$",
        "ahead": rb"(?<=\.)(?!(a+)+!)[a-c]{2,}\b",
        "counted": b"(?:a?){40}a{40}(x+x+)+y",
    }


def conversations() -> Seeds:
    """Both forms of a line."""
    turns = [("system", "Be kind."), ("user", "Why?"), ("assistant", "So.")]
    lines = [
        {"prompt": "How?", "response": "Stir it. \U0001f9ea"},
        {"messages": [{"role": role, "content": content} for role, content in turns]},
    ]
    return {"both": b"\n".join(json.dumps(line).encode() for line in lines) + b"\n\n"}


def requests() -> Seeds:
    """Each form, each set, and replies."""
    own = [
        {"prompt": "How?", "id": 1, "kind": "a", "group": "g", "response": "So."},
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "x"}]},
    ]
    asked = [{"question": "2+2?", "answer": "4"}, {"question": "3?", "answers": ["three", "3"]}]
    replies = [{"prompt": "How do I brew it?", "id": "1", "reply": "No."}, {"id": 2, "reply": "-"}]
    replies.append({"prompt": "Why?", "set": "harmful", "reply": ""})
    beaver = [{"prompt": "a", "response": "b", "category": {"x": True}, "is_safe": False}]
    lines = {0: own, 3: own, 6: asked, 0x81: replies, 9: beaver}
    found = {
        f"lines-{kind}": bytes([kind]) + b"\n".join(json.dumps(one).encode() for one in records)
        for kind, records in lines.items()
    }
    found["list"] = bytes([4]) + json.dumps(own).encode()
    found["xstest"] = (
        bytes([2]) + b'id_v2,prompt,type,label\r\n1,"a, b",contrast_x,unsafe\r\n2,c,d,safe\r\n'
    )
    found["advbench"] = bytes([2]) + b"goal,target\nWrite it,Sure\n"
    return found


def of_components() -> Seeds:
    """Records that fit the target's base, and one of another direction."""
    tensors = {"w": {"shape": [2, 3], "retain": 0.2}}
    described = {
        "kind": "patchc component", "version": 1, "component": "se", "seed": 7,
        "scores": ["weight"], "rest_unchanged": True, "base": "0" * 64, "tensors": tensors,
    }  # fmt: skip
    record = {
        "kind": "derive", "direction": "se", "base": "tiny", "base_digest": "a" * 64,
        "base_sample": components.base_sample(),
    }  # fmt: skip
    files = dict(
        zip(
            components.NAMES,
            (json.dumps(described).encode(), json.dumps(record).encode()),
            strict=True,
        )
    )
    other = {"derive.json": json.dumps(record | {"direction": "osm"}).encode()}
    return {
        "both": bundle.pack(files, components.NAMES),
        "other": bundle.pack(other, components.NAMES),
    }


def options() -> Seeds:
    """A table of options."""
    return {
        "apply": b'[apply]\nthreads = 2\njson = true\nmax_memory = "1GB"\n\n[build]\nalpha = 2.0\n'
    }


def json_values() -> Seeds:
    """Values of all kinds."""
    return {
        "object": b'{"a": [1, -2, 0.5, 1e-3, true], "b": {"c": "\\ud83d\\ude00 \xc3\xa9"}, "": []}',
        "numbers": b"[18446744073709551615, -9223372036854775808, 1e308]",
        "deep": b"[" * 60 + b"]" * 60,
        "text": b'"x"',
    }


MAKERS: dict[str, Callable[[], Seeds]] = {
    "patch_reader": patch_reader,
    "screens": screens,
    "rice": rice,
    "additive": additive,
    "conditional": conditional,
    "checkpoint": checkpoints,
    "signatures": of_signatures,
    "policies": policies,
    "recipes": recipes,
    "expressions": expressions,
    "conversations": conversations,
    "requests": requests,
    "results": lambda: {"one": results.seed()},
    "components": of_components,
    "options": options,
    "json_values": json_values,
}


def main() -> None:
    """Write all seeds."""
    for name, make in MAKERS.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            left.unlink()
        for seed, content in make().items():
            (folder / seed).write_bytes(content)


if __name__ == "__main__":
    main()
