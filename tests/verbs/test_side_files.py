"""Side files in any state: what apply, revert and verify make of them, by a table of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from command_line import run
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import normal, nudge, tree, write_model

import patchc
from patchc.patching.cards import is_card

Side = Literal["base", "result"]
Contents = Mapping[str, bytes | None]
OTHER: dict[Side, Side] = {"base": "result", "result": "base"}
VERBS = {"result": patchc.apply, "base": patchc.revert}
CARDS = {
    "README.md": (b"# A model\n", b"# A better model\n"),
    ".gitattributes": (b"*.safetensors filter=lfs\n", None),
    "docs/readme_zh.md": (None, b"new\n"),
}
OTHERS = {
    "config.json": (b'{"a": 1}', b'{"a": 2}'),
    "old.json": (b"{}", None),
    "new.json": (None, b"[]"),
}
WORDS = normal((3, 4096), "BF16", 1)
WEIGHTS = {
    "base": WORDS,
    "result": nudge(WORDS, 0.1, 2),
    "other": nudge(WORDS, 0.01, 3),
    "mixed": nudge(WORDS, 0.1, 2),
}
WEIGHTS["mixed"][1] = WORDS[1]


@dataclass(frozen=True)
class Update:
    """A patch that changes files, and weights or not."""

    patch: Path
    files: Mapping[str, tuple[bytes | None, bytes | None]]
    weights: bool

    def on(self, side: Side) -> dict[str, bytes | None]:
        return {name: both[side == "result"] for name, both in self.files.items()}


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> list[Update]:
    """Of weights and all files; of files alone; of cards alone; of weights and cards."""
    made = []
    for number, (files, weights) in enumerate(
        [(CARDS | OTHERS, True), (CARDS | OTHERS, False), (CARDS, False), (CARDS, True)]
    ):
        folder = tmp_path_factory.mktemp("update")
        update = Update(folder / f"{number}.patchc", files, weights)
        sides: dict[Side, str] = {"base": "base", "result": "result" if weights else "base"}
        models = [_write(folder / side, held, update.on(side)) for side, held in sides.items()]
        patchc.diff(*models, out=update.patch, chunk_bits=12)
        made.append(update)
    return made


def _write(folder: Path, weights: str, files: Contents) -> Path:
    write_model(folder, {"w": WEIGHTS[weights]}, side_files={"same.txt": "same"})
    for name, content in files.items():
        if content is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (_, content) in tree(folder).items()}


@dataclass(frozen=True)
class Case:
    """A receiver's model, and how it is run."""

    update: Update
    weights: str
    files: Contents
    keep: bool
    strict: bool

    def apart(self, side: Side) -> set[str]:
        return {name for name, own in self.files.items() if own != self.update.on(side)[name]}

    def refused(self, names: set[str]) -> set[str]:
        if self.strict:
            return names
        return set() if self.keep else names - set(CARDS)

    def side(self) -> str:
        """What the model is, by its weights; by its files where the patch changes no weights."""
        if self.update.weights or self.weights == "other":
            return self.weights
        telling = (set(self.files) - set(CARDS)) or set(self.files)
        for side in OTHER:
            if not telling & self.apart(side):
                return side
        return "neither side"

    def outcome(self, target: Side) -> int:
        """The exit code of a copy: the weights are asked first."""
        side = self.side()
        if side in ("mixed", "other"):
            return 10 if side == "mixed" else 7
        if side == target:
            return 8 if target == "result" else 9
        return 24 if self.refused(self.apart(OTHER[target])) else 0

    def outcome_in_place(self) -> int:
        if self.refused(set(self.files)):
            return 4
        return 7 if self.weights == "other" else 0

    def copy(self, folder: Path, target: Side) -> dict[str, bytes]:
        """The copy: what is the source's becomes the target's, and the rest stays."""
        held = target if self.update.weights else self.weights
        left = self.apart(OTHER[target])
        made = self.update.on(target)
        files = {name: own if name in left else made[name] for name, own in self.files.items()}
        return _contents(_write(folder, held, files))


@st.composite
def cases(draw: st.DrawFn, update: Update) -> Case:
    weights = ["base", "base", "result", "other", "mixed"] if update.weights else ["base", "other"]
    sides: list[Side] = ["base", "result"]
    usual = update.on(draw(st.sampled_from(sides)))
    files = {
        name: draw(st.sampled_from([usual[name], usual[name], *both, b"mine", None]))
        for name, both in update.files.items()
    }
    keep, strict = draw(st.sampled_from([(False, False), (True, False), (False, True)]))
    return Case(update, draw(st.sampled_from(weights)), files, keep, strict)


def _code(call: Any, *args: Any, **options: Any) -> tuple[int, Any]:
    try:
        return 0, call(*args, **options)
    except patchc.PatchcError as error:
        return error.exit_code, error


@settings(max_examples=150)
@given(st.data())
def test_a_copy(updates: list[Update], data: st.DataObject) -> None:
    case = data.draw(cases(data.draw(st.sampled_from(updates))))
    for target, verb in VERBS.items():
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            model, out = _write(place / "model", case.weights, case.files), place / "out"
            before = tree(model)
            options = {"keep_side_files": case.keep, "strict_side_files": case.strict}
            code, report = _code(verb, case.update.patch, model, out=out, **options)
            assert code == case.outcome(target), report
            assert tree(model) == before
            assert out.exists() == (code == 0)
            left = case.apart(OTHER[target])
            if code == 0:
                assert {one.name for one in report.left_alone} == left
                assert {one.name for one in report.written} == set(case.files) - left
                assert _contents(out) == case.copy(place / "expected", target)
                assert report.side_files == len(_contents(out)) - 1
            elif code == 24:
                refused = case.refused(left)
                assert {name for name in case.files if repr(name) in str(report)} == refused


@settings(max_examples=60)
@given(st.data())
def test_in_place(updates: list[Update], data: st.DataObject) -> None:
    """Side files stay as they are; a repeated run, and one from between, end well."""
    case = data.draw(cases(data.draw(st.sampled_from(updates))))
    for target, verb in VERBS.items():
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            model = _write(place / "model", case.weights, case.files)
            before = _contents(model)
            options = {"keep_side_files": case.keep, "strict_side_files": case.strict}
            code, report = _code(verb, case.update.patch, model, in_place=True, **options)
            assert code == case.outcome_in_place(), report
            if code:
                assert _contents(model) == before
                continue
            held = target if case.update.weights else case.weights
            assert _contents(model) == _contents(_write(place / "expected", held, case.files))
            assert {one.name for one in report.left_alone} == case.apart(target)


@settings(max_examples=60)
@given(st.data())
def test_verify(updates: list[Update], data: st.DataObject) -> None:
    case = data.draw(cases(data.draw(st.sampled_from(updates))))
    side = case.side()
    with tempfile.TemporaryDirectory() as name:
        model = _write(Path(name) / "model", case.weights, case.files)
        before = tree(model)
        options = {"keep_side_files": case.keep, "strict_side_files": case.strict}
        report = patchc.verify(case.update.patch, model, **options)
        flags = [f"--{name.replace('_', '-')}" for name, given in options.items() if given]
        code, _, errors = run("verify", case.update.patch, model, *flags)
        assert tree(model) == before
    found = {one.name: one for one in report.side_files}
    if side in ("other", "mixed"):
        assert (report.state, code) == (
            ("neither", 7) if side == "other" else ("partly patched", 10)
        )
        apart = case.apart("base") & case.apart("result") if side == "mixed" else set()
        assert set(found) == apart
        return
    assert report.state == ("patched" if side == "result" else "base")
    assert set(found) == case.apart("result" if side == "result" else "base")
    refused = case.refused(set(found))
    assert {name for name, one in found.items() if one.refused} == refused
    assert code == (24 if refused else 0), errors


# Cards --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "card"),
    [
        (
            "README README.md readme.MD a/b/README.txt README_zh.md README.zh-CN.md README-fr.rst",
            True,
        ),
        ("MODEL_CARD.md modelcard.md model-card_de.md .gitattributes a/.gitignore", True),
        ("LICENSE README.py README.json README.md.txt.sh README.md/config.json aREADME.md", False),
        (".gitmodules card.md config.json model.safetensors.index.json README_detailed.md", False),
    ],
)
def test_which_files_are_cards(names: str, card: bool) -> None:
    assert {is_card(name) for name in names.split()} == {card}


# Single cases ----------------------------------------------------------------------------------


def _receiver(updates: list[Update], folder: Path, **files: bytes | None) -> tuple[Path, Path]:
    update = updates[0]
    return update.patch, _write(folder / "model", "base", update.on("base") | files)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>Sign in</html>" + b" " * 99, "a web page and not the file"),
        (b"", "empty"),
        (b"[1]", "its content differs"),
    ],
)
def test_what_stands_in_a_file_s_place_is_called_by_its_name(
    updates: list[Update], tmp_path: Path, content: bytes, what: str
) -> None:
    patch, model = _receiver(updates, tmp_path, **{"old.json": content})
    with pytest.raises(patchc.SideFileError, match=what):
        patchc.apply(patch, model, out=tmp_path / "out")
    report = patchc.apply(patch, model, out=tmp_path / "out", keep_side_files=True)
    assert what in report.left_alone[0].what
    assert (tmp_path / "out" / "old.json").read_bytes() == content


def test_a_single_file_has_no_side_files(updates: list[Update], tmp_path: Path) -> None:
    """Cards are missing beside it, which is no reason to refuse it; others are one."""
    _, of_files, _, of_cards = updates
    model = _write(tmp_path / "model", "base", {}) / "model.safetensors"
    result = _write(tmp_path / "result", "result", {}) / "model.safetensors"
    report = patchc.apply(of_cards.patch, model, out=tmp_path / "out.safetensors")
    assert {one.name for one in report.left_alone} == set(CARDS)
    assert (tmp_path / "out.safetensors").read_bytes() == result.read_bytes()
    for update in (updates[0], of_files):
        with pytest.raises(patchc.SideFileError, match="a single file has none"):
            patchc.apply(update.patch, model, out=tmp_path / "x")
    assert patchc.verify(of_cards.patch, model).state == "base"
    assert patchc.apply(of_cards.patch, model, in_place=True).chunks == 3
    assert model.read_bytes() == result.read_bytes()
    assert not (tmp_path / "x").exists()


def test_code_that_is_not_written_is_not_asked_for(tmp_path: Path) -> None:
    sides = [
        _write(tmp_path / side, side, {"modeling.py": text, "README.md": text})
        for side, text in (("base", b"a = 1\n"), ("result", b"a = 2\n"))
    ]
    patch = tmp_path / "code.patchc"
    patchc.diff(*sides, out=patch)
    mine = _write(tmp_path / "mine", "base", {"modeling.py": b"a = 3\n", "README.md": b"a = 1\n"})
    with pytest.raises(patchc.CodeError):
        patchc.apply(patch, sides[0], out=tmp_path / "x")
    report = patchc.apply(patch, mine, out=tmp_path / "x", keep_side_files=True)
    assert report.code == ()
    assert (tmp_path / "x" / "modeling.py").read_bytes() == b"a = 3\n"
    assert (tmp_path / "x" / "README.md").read_bytes() == b"a = 2\n"


def test_there_and_back_with_a_card_of_one_s_own(updates: list[Update], tmp_path: Path) -> None:
    patch, model = _receiver(updates, tmp_path, **{"README.md": b"mine"})
    patchc.apply(patch, model, out=tmp_path / "out")
    patchc.revert(patch, tmp_path / "out", out=tmp_path / "back")
    assert tree(tmp_path / "back") == tree(model)


def test_the_command_names_them_once(updates: list[Update], tmp_path: Path) -> None:
    patch, model = _receiver(updates, tmp_path, **{"README.md": b"mine", "old.json": b"mine"})
    out = tmp_path / "out"
    code, text, errors = run("apply", patch, model, "-o", out)
    assert (code, text) == (24, "")
    assert "'old.json' (its content differs)" in errors
    assert "--keep-side-files" in errors
    assert "README" not in errors
    code, text, errors = run("apply", patch, model, "-o", out, "--keep-side-files")
    assert code == 0
    assert errors.count("README.md") == text.count("README.md") == 1
    assert f"patchc verify {patch} {out} --keep-side-files" in text
    assert run("verify", patch, out, "--keep-side-files")[0] == 0
    assert run("verify", patch, out)[0] == 24
    code, _, errors = run(
        "apply", patch, model, "-o", out, "--keep-side-files", "--strict-side-files"
    )
    assert (code, "exclude each other" in errors) == (2, True)


def test_a_layout_of_one_s_own_is_another_base(tmp_path: Path) -> None:
    """The index and the headers say where the words are; no option leaves them alone."""
    sides = []
    for side in ("base", "result"):
        words = WEIGHTS[side]
        tensors = {"a": words[:1], "b": words[1:]}
        form = "pt" if side == "base" else "np"
        sides.append(write_model(tmp_path / side, tensors, shards=2, form=form))
        index = sides[-1] / "model.safetensors.index.json"
        index.write_text(index.read_text().replace("{", f'{{"made": "{side}", ', 1))
    patch = tmp_path / "layout.patchc"
    patchc.diff(*sides, out=patch)
    for weights, layout, expected in (
        ("base", "result", patchc.WrongBaseError),
        ("result", "base", patchc.WrongBaseError),
        ("result", "result", patchc.AlreadyPatchedError),
    ):
        model = shutil.copytree(tmp_path / weights, tmp_path / f"{weights}-{layout}")
        shutil.copy(tmp_path / layout / "model.safetensors.index.json", model)
        for dry_run in (False, True):
            with pytest.raises(expected):
                patchc.apply(
                    patch, model, out=tmp_path / "x", dry_run=dry_run, keep_side_files=True
                )
        assert patchc.verify(patch, model).state == ("patched" if weights == layout else "neither")
    with pytest.raises(patchc.UnsupportedInputError):
        patchc.apply(patch, sides[0], in_place=True, keep_side_files=True)
