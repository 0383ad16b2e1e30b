"""Model cards of patches: what the hub reads of them, and that no text of a patch has an effect."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown
import pytest
import yaml
from command_line import run
from forged_patch import golden_parts
from golden_additive import additive_bytes
from golden_patch import METADATA, golden_bytes
from huggingface_hub import ModelCard
from huggingface_hub.utils import HFValidationError, validate_repo_id
from markdown_it import MarkdownIt
from signed_patches import TestKey, signed
from tiny_checkpoints import PatchedModel, normal, nudge, tree, write_model

import patchc
from patchc.errors import UsageError

DIGEST = 64 * "a"
HOSTILE = {
    "link": "[x](https://evil.example) [x]: https://evil.example <https://evil.example>",
    "address": "https://evil.example www.evil.example me@evil.example",
    "picture": "![x](https://evil.example/x.png)",
    "html": "</code></pre><script>alert(1)</script><img src=x onerror=alert(1)><!-- <style>",
    "front matter": "x\n---\nbase_model: evil/evil\n---\n",
    "yaml": 'x: {a: [1, "b"]} # & * ! | > % @ \'',
    "fences": "``` `x` ```` ~~~ \n```\n</pre>\n~~~~\n# heading",
    "begins and ends": "`<b>x</b>`",
    "bars": "a | b | c |\n| --- | --- |\n| <b> | d |",
    "formula": "$$ x \\\\( y $$$",
    "blocks": "\n\n> quote\n\n- item\n\n1. one\n\n***\n\n<div>\n\n    more\n\t# x",
    "backslash": "\\` \\[x](y)\\",
    "entities": "&lt;b&gt; &#60;script&#62;",
    "emphasis": "*a* **b** __c__ ~~d~~ :smile: @user #1",
    "hidden": "\x1b[31m\u202e\u200b\u2028\x85\r",
    "long": 5000 * "<b>`",
    "blank": "   ",
}
EVERYTHING = "\n".join(HOSTILE.values())
SIZE = re.compile(r"^- size: .*$", re.MULTILINE)
ALLOWED = {"h1", "h2", "p", "ul", "li", "code", "pre"}
TABLE = {"table", "thead", "tbody", "tr", "th", "td"}


def by_commonmark(text: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def by_python_markdown(text: str) -> str:
    return markdown.markdown(text, extensions=["tables", "fenced_code"])


DIALECTS = {"CommonMark": by_commonmark, "Python-Markdown": by_python_markdown}


class Page(HTMLParser):
    """What a page of HTML holds: its tags with attributes, and its text outside of code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.plain = ""
        self.code: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {f"{name}={value}" for name, value in attrs}
        self._open.append(tag)
        if tag == "code":
            self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "code" in self._open:
            self.code[-1] += data
        else:
            self.plain += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    handle_decl = handle_pi = unknown_decl = handle_comment


def body(card: str) -> str:
    return card.split("\n---\n", 1)[1]


def results(text: str) -> dict[str, Any]:
    """Results as a patch holds them, with a text of a stranger wherever one may be."""
    rate = {"hits": 1, "total": 4}
    one = {"digest": DIGEST, "rates": {"harmful": rate, "utility": rate}, "perplexities": {}}
    models = [{"model": text, "side": side, **one} for side in ("base", "result", None)]
    changes = {"harmful": {"difference": -0.5, "low": -0.75, "high": -0.25, "p_value": 0.03}}
    known = {"source": text, "file": DIGEST, "judge": text, "data": {text: DIGEST}}
    return known | {"models": models, "changes": changes}


def forged(path: Path, text: str) -> Path:
    """A patch with a text of a stranger in everything that its metadata holds."""
    line = text.replace("\n", " ")[:200]
    printable = "".join(one for one in line if one.isprintable())
    note = "".join(one for one in text if one.isprintable() or one == "\n")
    metadata = {
        **METADATA,
        "kind": text,
        "tool": {"name": text, text: [text]},
        "annotation": {
            "name": printable,
            "note": f"{note[:9990]}\nx",
            "results": results(printable),
        },
        "recipe": {"method": text, text: [text, {text: text}]},
        "inputs": {text: text},
        text: text,
    }
    path.write_bytes(golden_parts().but(metadata=json.dumps(metadata).encode()).assemble(level=0))
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "fix.patchc"
    path.write_bytes(golden_bytes())
    return path


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("text", [*HOSTILE.values(), EVERYTHING], ids=[*HOSTILE, "all"])
def test_no_text_of_a_patch_has_an_effect(
    tmp_path: Path, text: str, dialect: Callable[[str], str]
) -> None:
    card = patchc.model_card(forged(tmp_path / "fix.patchc", text))
    other = patchc.model_card(forged(tmp_path / "other.patchc", "x"))
    page, harmless = (Page(dialect(SIZE.sub("", body(one)))) for one in (card, other))
    assert set(page.tags) <= ALLOWED | TABLE
    assert page.attributes <= {"class=language-sh"}
    for tag in ("h1", "h2", "table", "tr", "th", "td", "pre"):
        assert page.tags.count(tag) == harmless.tags.count(tag), tag
    assert page.plain.split() == harmless.plain.split()
    assert len(page.code) == len(harmless.code)
    assert len(card) < 40_000


@pytest.mark.parametrize("text", [*HOSTILE.values(), EVERYTHING], ids=[*HOSTILE, "all"])
def test_the_front_matter_is_of_digests_alone(tmp_path: Path, text: str) -> None:
    path = forged(tmp_path / "fix.patchc", text)
    card, report = patchc.model_card(path, "org/name@main"), patchc.inspect(path)
    front, content = yaml.safe_load(card.split("---\n")[1]), ModelCard(card)
    assert front == {
        "base_model": "org/name",
        "base_model_relation": "finetune",
        "tags": ["patchc", "weight-patch"],
        "patchc": {
            "root": report.root,
            "base_digest": report.base_digest,
            "result_digest": report.result_digest,
            "base_revision": "main",
        },
    }
    assert content.data.to_dict() == front
    assert content.text == body(card)


def test_texts_are_shown_as_they_are(tmp_path: Path) -> None:
    text = "No <b>potions</b>, `2` | *not* $5 [a](b)"
    page = Page(by_commonmark(body(patchc.model_card(forged(tmp_path / "fix.patchc", text)))))
    assert page.code[0] == text
    assert f"{text}\nx\n" in page.code
    assert any(f"method = {text}\n" in one for one in page.code)


def test_no_formula_is_begun(tmp_path: Path) -> None:
    card = patchc.model_card(forged(tmp_path / "fix.patchc", "$$ a \\\\( $$$$"))
    assert "$$" not in card
    assert "\\\\(" not in card
    assert r"$\x24 a \\\x28 $\x24\x24\x24" in card


def test_names_of_tensors_files_and_components_have_no_effect(tmp_path: Path) -> None:
    tensor, file = "layers.0.`<b>x`|[a](b)<img src=x>", "[a](b)`<b>$$.py"
    weights = {name: normal((8, 8), "BF16", 1) for name in (tensor, "layers.1.x")}
    base = write_model(tmp_path / "base", weights)
    changed = {name: nudge(one, 0.5, 2) for name, one in weights.items()} | {"new": weights[tensor]}
    result = write_model(tmp_path / "result", changed, side_files={file: "import os\n"})
    path = tmp_path / "[a](b) `x`.patchc"
    patchc.diff(base, result, out=path)
    card = patchc.model_card(path)
    for dialect in DIALECTS.values():
        page = Page(dialect(body(card)))
        assert set(page.tags) <= ALLOWED
        assert "<b>" not in page.plain
    assert "Tensors: 1 added." in card
    assert "patchc apply fix.patchc base -o patched --allow-code\n" in card
    assert "x`.patchc" not in card
    assert any(file.replace("$$", r"$\x24") in one for one in page.code)


@pytest.mark.parametrize(
    "name", ["name", "org/name", "Org-1/na_me.v2-x", "1e5/2", "no/yes", "_a/b_"]
)
def test_ids_of_the_hub(plain: Path, name: str) -> None:
    validate_repo_id(name)
    for card in (patchc.model_card(plain, name), patchc.model_card(plain, f"{name}@1e5")):
        data = ModelCard(card).data
        assert (data.base_model, data.base_model_relation) == (name, "finetune")
    assert data.to_dict()["patchc"]["base_revision"] == "1e5"
    assert f"hf download {name} --revision 1e5 --local-dir base" in card
    quoted = re.findall('^ *(?:base_model|base_revision): "([^"]*)"$', card, re.MULTILINE)
    assert quoted == [name, "1e5"], "a reader of another YAML takes 1e5 for a number"


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "a/b/c", "org/", "/name", "-a/b", "a/b.", "a--b/c", "a..b", "a/b.git", "a b",
        "a/b\n", "a/b\nx: y", "../x", "https://huggingface.co/a/b", "a/" + 97 * "b", "a/b;x", "a/é",
    ],
)  # fmt: skip
def test_what_is_no_id_is_refused(plain: Path, name: str) -> None:
    with pytest.raises(HFValidationError):
        validate_repo_id(name)
    with pytest.raises(UsageError, match="no id of a model on the hub; give one such as org/name"):
        patchc.model_card(plain, name)


@pytest.mark.parametrize("revision", ["", "-x", "a b", "a\nb", "a..b", "$(x)", "@", 101 * "a"])
def test_what_is_no_revision_is_refused(plain: Path, revision: str) -> None:
    with pytest.raises(UsageError, match="what follows @ is no revision"):
        patchc.model_card(plain, f"org/name@{revision}")


def test_a_library_is_named_or_left_out(plain: Path) -> None:
    assert ModelCard(patchc.model_card(plain)).data.library_name is None
    assert ModelCard(patchc.model_card(plain, library="transformers")).data.library_name == (
        "transformers"
    )
    for wrong in ("", "two words", "a\n---", "x: y"):
        with pytest.raises(UsageError, match="no name of a library"):
            patchc.model_card(plain, library=wrong)


def test_results_are_those_of_the_patch(tmp_path: Path) -> None:
    card = patchc.model_card(forged(tmp_path / "fix.patchc", "phrases"))
    rate = "25.0 % [4.6, 69.9] of 4"
    change = "-50.0 [-75.0, -25.0], p = 0.03"
    row = f"| harmful requests not refused | {rate} | {rate} | {rate} | {change} |"
    assert row in card
    assert f"| questions answered right | {rate} | {rate} | {rate} |  |" in card
    assert "|  | base | patched | model 3 | patched − base |" in card
    assert "judged by `phrases`" in card


def test_signatures_are_named_and_not_checked(plain: Path) -> None:
    key = TestKey(1)
    plain.write_bytes(signed(golden_bytes(), key, expires="2031-01-01T00:00:00Z"))
    card = patchc.model_card(plain)
    assert f"- `{key.key_id}`" in card
    assert "has not checked" in card
    assert "expires 2031-01-01" in card
    assert "patchc verify fix.patchc base --trusted KEY.pub" in card


def test_the_command(tmp_path: Path, plain: Path) -> None:
    code, out, err = run("inspect", plain, "--card", "--base-model", "org/name")
    assert (code, err) == (0, "")
    assert out == patchc.model_card(plain, "org/name")
    code, out, err = run("inspect", plain, "--card", "--library", "transformers", "--quiet")
    assert code == 0
    assert "the card has no base_model" in err
    assert out == patchc.model_card(plain, library="transformers")
    data = ModelCard(out).data
    assert (data.base_model, data.to_dict().get("base_model_relation")) == (None, None)
    hostile = forged(tmp_path / "hostile.patchc", EVERYTHING)
    assert run("inspect", hostile, "--card")[1] == patchc.model_card(hostile)


def test_mistakes_with_the_command(plain: Path) -> None:
    for more, message in (
        ((plain, "--card"), "a model card is of one patch, and 2 are named"),
        (("--card", "--json"), "a model card is Markdown; leave out --json or --card"),
        (("--base-model", "org/name"), "give --card as well"),
        (("--library", "transformers"), "give --card as well"),
        (("--card", "--base-model", "a/b/c"), "'a/b/c' is no id of a model on the hub"),
    ):
        code, out, err = run("inspect", plain, *more)
        assert (code, out) == (2, "")
        assert message in err.replace("\n  ", " ")


def test_its_commands_do_what_they_say(
    tmp_path: Path, patched: PatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(patched.base, "base")
    shutil.copyfile(patched.patch, "fix.patchc")
    block = patchc.model_card(Path("fix.patchc"), "org/name").split("```sh\n")[1].split("\n```")[0]
    first, *commands = block.split("\n")
    assert first == "hf download org/name --local-dir base"
    for line in commands:
        program, *words = line.split()
        assert (program, run(*words)[0]) == ("patchc", 0), line
    assert tree(Path("reverted")) == tree(Path("base"))
    assert tree(Path("patched")) == tree(patched.tuned)


def test_an_additive_patch_promises_less(tmp_path: Path) -> None:
    path = tmp_path / "fix.patchc"
    path.write_bytes(additive_bytes("bf16"))
    card, report = patchc.model_card(path, "org/name"), patchc.inspect(path)
    assert "result_digest" not in card
    assert "- result: not promised\n" in card
    assert "patchc revert" not in card
    assert "cannot be reverted: keep the base" in card
    assert report.additive is not None
    for one in report.additive.components:
        assert f"- `{one.name}`: scale {one.scale:g}, {one.entries:,} entries" in card
