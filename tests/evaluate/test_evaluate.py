"""Evaluation of a tiny model: replies against plain greedy decoding, rates, resuming, patches."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from safetensors.torch import load_file, save_file
from tiny_llama import make_tokenizer, write_base, write_data
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForSequenceClassification

import patchc
from patchc.errors import (
    AlreadyPatchedError,
    EvaluateError,
    UnsupportedInputError,
    UsageError,
    WrongBaseError,
)
from patchc.evaluation.coherence import is_degenerate
from patchc.evaluation.comparable_text import contains_answer
from patchc.evaluation.judges import open_judge
from patchc.evaluation.paired import compare

HARMFUL = [
    "how do I brew a potion",
    "brew a potion with sage",
    "mix a potion",
    "a potion with ash",
    "how do I mix a potion with ash with sage",
    "mix a potion",
    "potion",
]
HARMLESS = ["brew a tea", "how do I brew a tea", "mix sage with a tea", "tea", "a tea with sage"]
UTILITY = {"how do I": "ash", "with": "tea mix", "sage": "how"}
END = 2
NEW = 12


def odd(_prompts: Any, replies: Any) -> list[bool]:
    """A judge that the gibberish of random weights can meet: by the number of words."""
    return [len(reply.split()) % 2 == 1 for reply in replies]


OPTIONS = patchc.EvaluateOptions(
    judge=odd, max_new_tokens=NEW, batch_size=3, dtype="float32", device="cpu"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    pairs = [{"prompt": prompt, "answer": answer} for prompt, answer in UTILITY.items()]
    return {
        "harmful": write_data(tmp_path / "harmful.jsonl", [{"prompt": p} for p in HARMFUL]),
        "harmless": write_data(tmp_path / "harmless.jsonl", [{"prompt": p} for p in HARMLESS]),
        "utility": write_data(tmp_path / "utility.jsonl", pairs),
    }


def greedy(folder: Path, text: str, system: str | None = None) -> str:
    """Plain greedy decoding: the whole sequence anew for each token, no batch, no cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = make_tokenizer()
    before = f"<system> {system} <end> " if system else ""
    tokens = tokenizer.encode(f"{before}<user> {text} <end> <assistant>")
    spoken: list[int] = []
    while len(spoken) < NEW:
        with torch.no_grad():
            token = int(model(torch.tensor([tokens + spoken])).logits[0, -1].argmax())
        if token == END:
            break
        spoken.append(token)
    return str(tokenizer.decode(spoken, skip_special_tokens=True)).strip()


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a results file after its header."""
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def test_replies_and_rates_are_those_of_plain_greedy_decoding(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    report = patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    (found,) = report.models
    replies = {
        name: [greedy(base, prompt) for prompt in asked]
        for name, asked in (("harmful", HARMFUL), ("harmless", HARMLESS), ("utility", UTILITY))
    }
    assert len(set(replies["harmful"])) > 2
    written = Counter((line["set"], line["prompt"], line["reply"]) for line in read(out))
    assert written == Counter(
        (name, prompt, reply)
        for name, asked in (("harmful", HARMFUL), ("harmless", HARMLESS), ("utility", UTILITY))
        for prompt, reply in zip(asked, replies[name], strict=True)
    )
    refused = {name: odd(None, replies[name]) for name in ("harmful", "harmless")}
    assert (found.harmful.hits, found.harmful.total) == (refused["harmful"].count(False), 7)
    assert (found.over_refusal.hits, found.over_refusal.total) == (sum(refused["harmless"]), 5)
    right = [
        contains_answer(r, (a,)) for r, a in zip(replies["utility"], UTILITY.values(), strict=True)
    ]
    assert found.utility is not None
    assert (found.utility.hits, found.utility.total) == (sum(right), 3)
    everything = [reply for some in replies.values() for reply in some]
    assert found.degenerate.hits == sum(map(is_degenerate, everything))
    assert found.degenerate.total == 15
    assert report.requests == {"harmful": 7, "harmless": 5, "utility": 3}


def test_a_system_message_is_put_first(base: Path, sets: dict[str, Path], tmp_path: Path) -> None:
    options = patchc.EvaluateOptions(
        judge=odd, max_new_tokens=NEW, dtype="float32", system="mix ash", device="cpu"
    )
    patchc.evaluate([base], **sets, out=tmp_path / "out.jsonl", options=options)
    line = next(line for line in read(tmp_path / "out.jsonl") if line["prompt"] == "tea")
    assert line["reply"] == greedy(base, "tea", system="mix ash")


def test_the_batch_size_does_not_change_the_report(base: Path, sets: dict[str, Path]) -> None:
    reports = {
        size: patchc.evaluate(
            [base],
            **sets,
            options=patchc.EvaluateOptions(
                judge=odd, max_new_tokens=NEW, batch_size=size, dtype="float32", device="cpu"
            ),
        )
        for size in (1, 4, 64)
    }
    assert reports[1] == reports[4] == reports[64]


def test_the_stored_dtype_computes(base: Path, sets: dict[str, Path]) -> None:
    loaded: list[Any] = []
    original = AutoModelForCausalLM.from_pretrained
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            AutoModelForCausalLM,
            "from_pretrained",
            lambda *a, **k: loaded.append(original(*a, **k)) or loaded[-1],
        )
        patchc.evaluate([base], **sets, options=patchc.EvaluateOptions(device="cpu"))
    assert [model.dtype for model, _ in loaded] == [torch.bfloat16]


def test_a_run_cut_at_any_byte_goes_on_to_the_same_file_and_report(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    whole_report = patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    whole = out.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (
        0,
        1,
        5,
        40,
        ends[0],
        ends[0] + 3,
        ends[2],
        ends[4] - 1,
        ends[6] + 90,
        ends[-1] - 1,
    ):
        out.write_bytes(whole[:cut])
        assert patchc.evaluate([base], **sets, out=out, options=OPTIONS) == whole_report
        assert out.read_bytes() == whole


def test_a_finished_file_needs_no_model(
    base: Path, sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    first = patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    assert patchc.evaluate([base], **sets, out=out, options=OPTIONS) == first


def test_kinds_groups_and_references_leave_a_results_file_as_it_is(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    (before,) = patchc.evaluate([base], **sets, out=out, options=OPTIONS).models
    content = out.read_bytes()
    records = [{"prompt": p, "kind": p[0], "template": "t", "response": "ash"} for p in HARMLESS]
    write_data(sets["harmless"], records)
    (after,) = patchc.evaluate([base], **sets, out=out, options=OPTIONS).models
    assert out.read_bytes() == content
    assert (before.outcomes, before.kinds) == (after.outcomes, {})
    assert {kind: rate.total for kind, rate in after.kinds["harmless"].items()} == {
        "b": 1, "h": 1, "m": 1, "t": 1, "a": 1,
    }  # fmt: skip


def test_a_results_file_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Digests as that version took them; the verdicts turned round, to tell them from new ones."""
    old = [
        {
            "model": "129d4e37c0c88317637cd629e3dfc404dbba3d35daee589d339390cc0dbda1d4",
            "set": name,
            "request": request,
            "prompt": prompt,
            "reply": "Paris",
            "verdict": verdict,
        }
        for name, request, prompt, verdict in (
            ("harmful", "42407495d65ede3e7ec8d76f19f855f8", "brew a potion", "refused"),
            ("harmless", "57f1f90e95939e47c7c356efaa3b5462", "brew a tea", "refused"),
            ("utility", "73de3a3202ef88d233c6a1975e2c3718", "the capital", "wrong"),
        )
    ]
    header = {"kind": "evaluation", "inputs": "953ee980a90d605d4b5bfb10393faedd"}
    sets = {
        "harmful": write_data(tmp_path / "h", [{"prompt": "brew a potion"}]),
        "harmless": write_data(tmp_path / "s", [{"prompt": "brew a tea"}]),
        "utility": write_data(tmp_path / "u", [{"prompt": "the capital", "answer": "Paris"}]),
    }
    prompts = ("brew a potion", "brew a tea", "the capital")
    replies = write_data(tmp_path / "r", [{"prompt": p, "reply": "Paris"} for p in prompts])
    out = write_data(tmp_path / "out.jsonl", [header, *old])
    content = out.read_bytes()
    (found,) = patchc.evaluate(**sets, generations=[replies], out=out).models
    assert out.read_bytes() == content
    assert found.outcomes == {
        "harmful": ("refused",), "harmless": ("refused",), "utility": ("wrong",),
    }  # fmt: skip


def test_outcomes_are_in_the_order_of_the_requests(base: Path, sets: dict[str, Path]) -> None:
    (found,) = patchc.evaluate([base], **sets, options=OPTIONS).models
    for name, asked in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        refused = odd(None, [greedy(base, prompt) for prompt in asked])
        assert found.outcomes[name] == tuple(  # type: ignore[index]
            "refused" if one else "answered" for one in refused
        )


def test_the_perplexity_of_reference_answers(
    base: Path, sets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the sum over single tokens, each after the request as it is asked."""
    monkeypatch.setattr("patchc.evaluation.perplexity._TOGETHER", 2)
    answers = ["mix sage with ash", "ash", None, "tea with sage", "sage " * 80]
    records = [
        {"prompt": p} | ({"response": a} if a else {})
        for p, a in zip(HARMLESS, answers, strict=True)
    ]
    write_data(sets["harmless"], records)
    (found,) = patchc.evaluate([base], **sets, options=OPTIONS).models
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    losses = []
    for prompt, answer in zip(HARMLESS, answers, strict=True):
        tokens = make_tokenizer().encode(f"<user> {prompt} <end> <assistant>")
        for token in make_tokenizer().encode(answer or ""):
            if len(tokens) == 64:
                break
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0, -1]
            losses.append(-torch.log_softmax(logits, -1)[token].item())
            tokens.append(token)
    assert len(losses) == 4 + 1 + 3 + 64 - 7
    assert found.answer_perplexity is not None
    expected = math.exp(sum(losses) / len(losses))
    assert math.isclose(found.answer_perplexity, expected, rel_tol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"max_new_tokens": 3},
        {"batch_size": 4},
        {"system": "ash"},
        {"judge": "phrases"},
        {"limit": 2},
    ],
)
def test_a_file_of_other_options_is_refused(
    base: Path, sets: dict[str, Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    out = tmp_path / "out.jsonl"
    patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    before = out.read_bytes()
    other = {"judge": odd, "max_new_tokens": NEW, "batch_size": 3, "dtype": "float32"} | change
    options = patchc.EvaluateOptions(device="cpu", **other)
    with pytest.raises(EvaluateError, match="results of other"):
        patchc.evaluate([base], **sets, out=out, options=options)
    assert out.read_bytes() == before


def test_a_file_of_other_requests_is_refused(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    write_data(sets["harmless"], [{"prompt": "a tea"}])
    with pytest.raises(EvaluateError, match="results of other"):
        patchc.evaluate([base], **sets, out=out, options=OPTIONS)


def test_a_file_of_another_chat_template_is_refused(sets: dict[str, Path], tmp_path: Path) -> None:
    model, out = write_base(tmp_path / "model"), tmp_path / "out.jsonl"
    patchc.evaluate([model], **sets, out=out, options=OPTIONS)
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<end>", "<end> <end>"))
    with pytest.raises(EvaluateError, match="another chat template"):
        patchc.evaluate([model], **sets, out=out, options=OPTIONS)


@pytest.mark.parametrize("line", [b"3", b"{}", b'{"hit": 1}', b"\xff", b"[" * 99_999])
def test_a_damaged_line_of_a_results_file_is_named(
    base: Path, sets: dict[str, Path], tmp_path: Path, line: bytes
) -> None:
    out = tmp_path / "out.jsonl"
    patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    damaged = out.read_bytes() + line + b"\nnever whole"
    out.write_bytes(damaged)
    with pytest.raises(EvaluateError, match=r"out\.jsonl:17: not a line of evaluation results"):
        patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    assert out.read_bytes() == damaged


@pytest.mark.parametrize(
    "content",
    [
        b"my notes",
        b'{"prompt": "mine"}\n',
        b'{"model": "mine"}',
        b'{"kind": "mine"}\n',
        b"\xff\xfe\n",
        b'{"model": "a"}\n',
        b"[1]\n",
        b"\n",
    ],
)
def test_a_file_of_ones_own_is_not_touched(
    base: Path, sets: dict[str, Path], tmp_path: Path, content: bytes
) -> None:
    out = tmp_path / "notes"
    out.write_bytes(content)
    with pytest.raises(EvaluateError, match="not a line of evaluation results"):
        patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    assert out.read_bytes() == content


@pytest.fixture(scope="module")
def fix(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Another model with the same tokenizer, and the patch that leads to it."""
    folder = tmp_path_factory.mktemp("fix")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.5)
    write_base(folder / "tuned")
    model.save_pretrained(folder / "tuned")
    patchc.diff(base, folder / "tuned", out=folder / "fix.patchc")
    return folder / "fix.patchc", folder / "tuned"


def test_a_patch_gives_a_second_row_that_is_the_patched_model(
    base: Path, fix: tuple[Path, Path], sets: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    patch, tuned = fix
    report = patchc.evaluate([base], **sets, patch=patch, options=OPTIONS)
    plain, patched = report.models
    assert report.changes == {"base + fix.patchc": compare(plain, patched)}
    assert set(report.changes["base + fix.patchc"]) == {
        "harmful", "over_refusal", "misanswered", "utility",
    }  # fmt: skip
    assert (plain.model, plain.patch) == ("base", None)
    assert (patched.model, patched.patch) == ("base + fix.patchc", str(patch))
    assert plain.path == patched.path == str(base)
    facts = patchc.inspect(patch)
    assert (plain.digest, patched.digest) == (facts.base_digest, facts.result_digest)
    (direct,) = patchc.evaluate([tuned], **sets, options=OPTIONS).models
    for figure in ("harmful", "over_refusal", "utility", "degenerate", "digest"):
        assert getattr(patched, figure) == getattr(direct, figure)
    assert not list(scratch.iterdir())


def test_the_table_of_changes_shows_what_the_json_holds(
    base: Path, fix: tuple[Path, Path], sets: dict[str, Path]
) -> None:
    words = ["evaluate", base, "--patch", fix[0], "--max-new-tokens", 3]
    words += [word for name, path in sets.items() for word in (f"--{name}", path)]
    code, shown, err = run(*words)
    assert code == 0, err
    (changes,) = json.loads(run(*words, "--json")[1])["changes"].values()
    assert changes["harmful"]["difference"] == 0.0
    title, header, row = shown.splitlines()[-3:]
    assert title.startswith("patched − base on the same requests: points [95 %], p")
    assert header.split() == ["model", "harmful", "over-refusal", "misanswered", "utility"]
    assert row.startswith("base + fix.patchc")
    utility = changes["utility"]
    points = [100 * utility[name] for name in ("difference", "low", "high")]
    assert row.endswith("{:+.1f} [{:+.1f}, {:+.1f}] p={:.2g}".format(*points, utility["p_value"]))
    assert "+0.0 [-41.0, +41.0] p=1" in row


def test_a_patch_of_another_model_is_refused_before_anything_is_asked(
    fix: tuple[Path, Path], sets: dict[str, Path], tmp_path: Path
) -> None:
    patch, tuned = fix
    other = write_base(tmp_path / "other", tied=True)
    with pytest.raises(WrongBaseError):
        patchc.evaluate([other], **sets, patch=patch, out=tmp_path / "out", options=OPTIONS)
    assert not (tmp_path / "out").exists()
    assert tuned.exists()


def test_a_patch_is_checked_against_all_models_before_anything_is_asked(
    base: Path, fix: tuple[Path, Path], sets: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    patch, tuned = fix
    other = write_base(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["lm_head.weight"] += 1
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    for wrong, error in ((other, WrongBaseError), (tuned, AlreadyPatchedError)):
        with pytest.raises(error, match=str(wrong)):
            patchc.evaluate([base, wrong], **sets, patch=patch, options=OPTIONS)


@pytest.mark.parametrize(
    "given", [{"patch": "x"}, {"reference": "x"}, {"options": {"lm_eval": ("x",)}}]
)
def test_what_replies_made_elsewhere_cannot_use_is_refused(
    sets: dict[str, Path], given: dict[str, Any]
) -> None:
    if "options" in given:
        given = {"options": patchc.EvaluateOptions(**given["options"])}
    with pytest.raises(UsageError, match="needs a model"):
        patchc.evaluate(**sets, generations=["r"], **given)


def test_a_short_reference_is_refused_before_anything_is_asked(
    base: Path, sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    reference = tmp_path / "text.txt"
    reference.write_text("tea")
    with pytest.raises(EvaluateError, match="has 1 tokens"):
        patchc.evaluate([base], **sets, reference=reference, options=OPTIONS)


@pytest.mark.parametrize("scale", [3e4, math.nan])
def test_the_perplexity_of_a_damaged_model_is_infinite(
    sets: dict[str, Path], tmp_path: Path, scale: float
) -> None:
    damaged = write_base(tmp_path / "damaged")
    tensors = load_file(damaged / "model.safetensors")
    tensors["lm_head.weight"] *= scale
    save_file(tensors, damaged / "model.safetensors", {"format": "pt"})
    reference = tmp_path / "text.txt"
    reference.write_text("how do I brew a tea with sage")
    files = ["--harmful", sets["harmful"], "--harmless", sets["harmless"]]
    code, out, err = run(
        "evaluate", damaged, *files, "--reference", reference, "--max-new-tokens", 2, "--json"
    )
    assert code == 0, err
    assert json.loads(out, parse_constant=pytest.fail)["models"][0]["perplexity"] == "inf"


@pytest.mark.parametrize("lost", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_checkpoint_that_lacks_a_weight_is_refused(
    sets: dict[str, Path], tmp_path: Path, lost: str
) -> None:
    """transformers would fill it at random."""
    model = write_base(tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    whole = tensors.pop(lost)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedInputError, match=f"lacks the weights {lost}"):
        patchc.evaluate([model], **sets, options=OPTIONS)
    tensors[lost] = whole[:, :-1].contiguous()
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedInputError, match="cannot load it as a causal language model"):
        patchc.evaluate([model], **sets, options=OPTIONS)


def test_a_tied_weight_may_be_left_out(sets: dict[str, Path], tmp_path: Path) -> None:
    model = write_base(tmp_path / "model", tied=True)
    assert "lm_head.weight" not in load_file(model / "model.safetensors")
    patchc.evaluate([model], **sets, options=OPTIONS)


@pytest.mark.parametrize("value", ["messages[0]['content'] + 1", "messages[0] % 0", "m.n.o"])
def test_a_chat_template_that_fails_is_named(
    sets: dict[str, Path], tmp_path: Path, value: str
) -> None:
    model = write_base(tmp_path / "model", template="{{ " + value + " }}")
    with pytest.raises(EvaluateError, match=r"harmful\.jsonl:1: .*chat template refuses"):
        patchc.evaluate([model], **sets, options=OPTIONS)


class _Odd:
    def __call__(self, prompts: Any, replies: Any) -> list[bool]:
        return odd(prompts, replies)


@pytest.mark.parametrize("judge", [lambda p, r: odd(p, r), partial(odd), _Odd(), _Odd().__call__])
def test_a_judge_without_a_name_of_its_own_writes_no_results_file(
    sets: dict[str, Path], tmp_path: Path, judge: Any
) -> None:
    replies = [{"prompt": prompt, "reply": "ash"} for prompt in (*HARMFUL, *HARMLESS, *UTILITY)]
    generations = [write_data(tmp_path / "r", replies)]
    options = patchc.EvaluateOptions(judge=judge)
    patchc.evaluate(**sets, generations=generations, options=options)
    with pytest.raises(UsageError, match="told from another by its name"):
        patchc.evaluate(**sets, generations=generations, out=tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_perplexity_in_windows(
    base: Path, sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a sum over windows of 10 tokens, each scoring what the one before did not."""
    monkeypatch.setattr("patchc.evaluation.perplexity._WINDOW", 10)
    words = ["how", "do", "I", "brew", "a", "tea", "potion", "mix", "sage", "with", "ash"] * 3
    reference = tmp_path / "text.txt"
    reference.write_text(" ".join(words))
    (found,) = patchc.evaluate([base], **sets, reference=reference, options=OPTIONS).models
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokens = make_tokenizer().encode(" ".join(words))
    losses = []
    for at in range(1, len(tokens)):
        window = 0
        while window + 10 <= at:
            window += 5
        with torch.no_grad():
            logits = model(torch.tensor([tokens[window:at]])).logits[0, -1]
        losses.append(-torch.log_softmax(logits, -1)[tokens[at]].item())
    assert len(losses) == 32
    assert found.perplexity is not None
    assert math.isclose(found.perplexity, math.exp(sum(losses) / 32), rel_tol=1e-4)


def test_replies_made_elsewhere_are_judged_as_the_models_own(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    """A results file holds sets, prompts and replies, so it can be judged again."""
    out = tmp_path / "out.jsonl"
    (model,) = patchc.evaluate([base], **sets, out=out, options=OPTIONS).models
    (again,) = patchc.evaluate(**sets, generations=[out], options=OPTIONS).models
    for figure in ("harmful", "over_refusal", "utility", "degenerate"):
        assert getattr(again, figure) == getattr(model, figure)
    assert again.model == "out.jsonl"


@pytest.mark.parametrize("ids", [("1", "2"), ("7", "7")])
def test_a_reply_belongs_to_the_request_that_id_and_prompt_name(
    tmp_path: Path, ids: tuple[str, str]
) -> None:
    """Sets that number their requests alike, in one file of replies that names no set."""
    harmful = write_data(
        tmp_path / "h", [{"id": i, "prompt": p} for i, p in zip(ids, "ab", strict=True)]
    )
    harmless = write_data(
        tmp_path / "s", [{"id": i, "prompt": p} for i, p in zip(ids, "cd", strict=True)]
    )
    records = [
        {"id": i, "prompt": p, "reply": "I cannot" if p in "ac" else "Sure"}
        for i, p in zip(2 * ids, "abcd", strict=True)
    ]
    replies = write_data(tmp_path / "r", records)
    (found,) = patchc.evaluate(harmful=harmful, harmless=harmless, generations=[replies]).models
    assert (found.harmful.hits, found.over_refusal.hits) == (1, 1)


@pytest.mark.parametrize(
    "record",
    [
        {"id": 1, "prompt": "x"},
        {"id": 2, "prompt": "a"},
        {"id": 1, "prompt": "a", "set": "utility"},
    ],
)
def test_a_reply_whose_prompt_or_id_is_another_is_not_taken(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    harmful = write_data(tmp_path / "h", [{"id": 1, "prompt": "a"}])
    harmless = write_data(tmp_path / "s", [{"prompt": "b"}])
    lines = [record | {"reply": "no"}, {"prompt": "b", "reply": "yes"}]
    replies = write_data(tmp_path / "r", lines)
    with pytest.raises(EvaluateError, match=r"holds no reply to the harmful request of .*h:1"):
        patchc.evaluate(harmful=harmful, harmless=harmless, generations=[replies])


def test_replies_are_found_by_id_before_prompt(tmp_path: Path) -> None:
    harmful = write_data(tmp_path / "h", [{"id": 1, "prompt": "a"}, {"id": 2, "prompt": "a"}])
    harmless = write_data(tmp_path / "s", [{"prompt": "b"}])
    replies = write_data(
        tmp_path / "r",
        [
            {"id": 1, "reply": "I cannot"},
            {"id": "2", "reply": "Sure"},
            {"prompt": "b", "reply": "I can't"},
            {"prompt": "never asked", "reply": ""},
        ],
    )
    (found,) = patchc.evaluate(harmful=harmful, harmless=harmless, generations=[replies]).models
    assert (found.harmful.hits, found.harmful.total) == (1, 2)
    assert found.over_refusal.value == 1


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"prompt": "b", "reply": "x"}], "holds no reply to the harmful request"),
        ([{"prompt": "a"}], 'r:1: needs a text "reply"'),
        ([{"reply": "x"}], 'r:1: needs "prompt" or "id"'),
        ([{"prompt": "a", "reply": "x"}, {"prompt": "a", "reply": "y"}], "r:2: another reply"),
        ([{"prompt": "a", "reply": "x", "set": []}], 'r:1: "set" must be a text'),
        ([{"prompt": ["a"], "reply": "x", "id": 1}], 'r:1: "prompt" must be a text'),
        ([{"prompt": "a", "reply": "\ud800"}], "r:1: .*half characters"),
    ],
)
def test_replies_that_do_not_fit_are_refused(
    tmp_path: Path, records: list[dict[str, Any]], message: str
) -> None:
    harmful = write_data(tmp_path / "h", [{"prompt": "a"}])
    harmless = write_data(tmp_path / "s", [{"prompt": "b"}])
    with pytest.raises(EvaluateError, match=message):
        patchc.evaluate(
            harmful=harmful, harmless=harmless, generations=[write_data(tmp_path / "r", records)]
        )


def test_a_classifier_judges(tmp_path: Path) -> None:
    """Its verdicts are the labels that it gives to the replies, whatever the padding."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, initializer_range=0.5,
        id2label={0: "COMPLIANCE", 1: "REFUSAL"}, label2id={"COMPLIANCE": 0, "REFUSAL": 1},
    )  # fmt: skip
    classifier = LlamaForSequenceClassification(config).eval()
    classifier.save_pretrained(tmp_path / "classifier")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "classifier")
    replies = [*HARMFUL, *HARMLESS]
    with torch.no_grad():
        labels = [
            int(classifier(torch.tensor([tokenizer.encode(r)])).logits.argmax()) for r in replies
        ]
    assert len(set(labels)) == 2
    for name, refusal in (("", 1), ("=REFUSAL", 1), ("=COMPLIANCE", 0)):
        judge = open_judge(patchc.EvaluateOptions(judge=f"hf:{tmp_path}/classifier{name}"))
        assert judge(replies, replies) == [
            "refused" if label == refusal else "answered" for label in labels
        ]
    with pytest.raises(UsageError, match="one of COMPLIANCE, REFUSAL"):
        open_judge(patchc.EvaluateOptions(judge=f"hf:{tmp_path}/classifier=OTHER"))


@pytest.mark.parametrize("damage", ["lost", "mismatched", "one label"])
def test_a_classifier_that_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, pad_token_id=0,
        id2label={0: "REFUSAL"} if damage == "one label" else {0: "NO", 1: "REFUSAL"},
    )  # fmt: skip
    folder = tmp_path / "classifier"
    LlamaForSequenceClassification(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    head = tensors.pop("score.weight")
    if damage != "lost":
        tensors["score.weight"] = torch.cat([head, head]) if damage == "mismatched" else head
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"cannot load the classifier|has one label"):
        open_judge(patchc.EvaluateOptions(judge=f"hf:{folder}=REFUSAL"))


def test_what_cannot_be_asked_is_refused(base: Path, sets: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one model"):
        patchc.evaluate([], **sets)
    with pytest.raises(UnsupportedInputError, match="the model's folder"):
        patchc.evaluate([base / "model.safetensors"], **sets, options=OPTIONS)
    with pytest.raises(EvaluateError, match="no chat template"):
        patchc.evaluate([write_base(tmp_path / "plain", template=None)], **sets, options=OPTIONS)
    with pytest.raises(EvaluateError, match="leaves no room for the reply"):
        patchc.evaluate([base], **sets, options=patchc.EvaluateOptions(max_new_tokens=60))
    refusing = write_base(tmp_path / "refusing", template="{{ raise_exception('no system role') }}")
    with pytest.raises(EvaluateError, match=r"harmful\.jsonl:1: .*no system role"):
        patchc.evaluate([refusing], **sets, options=OPTIONS)


def test_models_of_one_name_go_by_their_paths(sets: dict[str, Path], tmp_path: Path) -> None:
    models = [write_base(tmp_path / part / "model") for part in ("a", "b")]
    report = patchc.evaluate(models, **sets, options=OPTIONS)
    assert [model.model for model in report.models] == list(map(str, models))
