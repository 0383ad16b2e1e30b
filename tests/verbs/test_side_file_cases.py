"""Side files that differ: which are cards, what they are called, and what is never left alone."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from command_line import run
from ordinary_user import ordinary_user
from side_updates import CARDS, WEIGHTS, Update, write_sides_model, write_updates
from tiny_checkpoints import tree, write_model

import patchc
from patchc.errors import UnsupportedInputError
from patchc.patching.cards import is_card


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> list[Update]:
    return write_updates(tmp_path_factory.mktemp("updates"))


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


def _receiver(updates: list[Update], folder: Path, **files: bytes | None) -> tuple[Path, Path]:
    update = updates[0]
    return update.patch, write_sides_model(folder / "model", "base", update.on("base") | files)


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


@pytest.mark.parametrize("name", ["README.md", "old.json"])
def test_a_folder_in_a_file_s_place_is_an_edited_file(
    updates: list[Update], tmp_path: Path, name: str
) -> None:
    patch, model = _receiver(updates, tmp_path, **{name: None})
    (model / name).mkdir()
    (model / name / "mine").write_text("mine")
    if name == "old.json":
        with pytest.raises(patchc.SideFileError, match=r"'old.json' \(a folder\)"):
            patchc.apply(patch, model, out=tmp_path / "out")
    report = patchc.apply(patch, model, out=tmp_path / "out", keep_side_files=True)
    assert [(one.name, one.what) for one in report.left_alone] == [(name, "a folder")]
    assert (tmp_path / "out" / name / "mine").read_text() == "mine"


def test_a_file_in_the_place_of_a_card_s_folder(updates: list[Update], tmp_path: Path) -> None:
    patch, model = _receiver(updates, tmp_path)
    (model / "docs").write_text("mine")
    report = patchc.apply(patch, model, out=tmp_path / "out")
    assert [one.what for one in report.left_alone] == ["missing, and 'docs' is not a folder"]
    patchc.revert(patch, tmp_path / "out", out=tmp_path / "back")
    assert tree(tmp_path / "back") == tree(model)


def test_a_link_that_leads_nowhere(updates: list[Update], tmp_path: Path) -> None:
    """It is no reason not to patch the weights in place; no copy can be made of it."""
    patch, model = updates[3].patch, tmp_path / "model"
    write_sides_model(model, "base", updates[3].on("base") | {"README.md": None})
    (model / "README.md").symlink_to("nowhere")
    with pytest.raises(patchc.CheckpointError, match="not a regular file"):
        patchc.apply(patch, model, out=tmp_path / "out")
    patchc.apply(patch, model, in_place=True)
    found = {one.name: one.what for one in patchc.verify(patch, model).side_files}
    assert found["README.md"] == "a link that leads nowhere"
    assert (model / "README.md").is_symlink()
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_entered(updates: list[Update]) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        patch, model = _receiver(updates, place, **{"docs/readme_zh.md": b"mine"})
        patch = Path(shutil.copy(patch, place))
        assert patchc.verify(patch, model).state == "base"  # all that it needs is loaded
        (model / "docs").chmod(0)
        with ordinary_user(), pytest.raises(patchc.CheckpointError, match=r"docs/readme_zh\.md"):
            patchc.verify(patch, model)
        (model / "docs").chmod(0o755)


def test_a_single_file_has_no_side_files(updates: list[Update], tmp_path: Path) -> None:
    """Cards are missing beside it, which is no reason to refuse it; others are one."""
    _, of_files, _, of_cards = updates
    model = write_sides_model(tmp_path / "model", "base", {}) / "model.safetensors"
    result = write_sides_model(tmp_path / "result", "result", {}) / "model.safetensors"
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
        write_sides_model(tmp_path / side, side, {"modeling.py": text, "README.md": text})
        for side, text in (("base", b"a = 1\n"), ("result", b"a = 2\n"))
    ]
    patch = tmp_path / "code.patchc"
    patchc.diff(*sides, out=patch)
    mine = write_sides_model(
        tmp_path / "mine", "base", {"modeling.py": b"a = 3\n", "README.md": b"a = 1\n"}
    )
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


def test_files_alone_there_and_back_with_one_of_one_s_own(
    updates: list[Update], tmp_path: Path
) -> None:
    """The others tell that the copy holds the patch."""
    update = updates[1]
    model = write_sides_model(
        tmp_path / "model", "base", update.on("base") | {"merges.txt": b"mine"}
    )
    out = tmp_path / "out"
    assert patchc.status(model, update.patch).patches[0].state == "base"
    patchc.apply(update.patch, model, out=out, keep_side_files=True)
    assert patchc.verify(update.patch, out).state == "patched"
    [status] = patchc.status(out, update.patch).patches
    assert status.state == "patched"
    assert [one.name for one in status.side_files] == ["merges.txt"]
    with pytest.raises(patchc.AlreadyPatchedError, match=r"merges\.txt"):
        patchc.apply(update.patch, out, out=tmp_path / "x", keep_side_files=True)
    patchc.revert(update.patch, out, out=tmp_path / "back", keep_side_files=True)
    assert tree(tmp_path / "back") == tree(model)


def test_the_way_back_in_place_keeps_side_files_too(updates: list[Update], tmp_path: Path) -> None:
    """Also where all of them are the result's, and none is left alone."""
    update = updates[0]
    for number, held in enumerate((update.on("base"), update.on("result"))):
        model = write_sides_model(tmp_path / str(number), "result", held)
        keep = ("--in-place", "--keep-side-files")
        code, text, _ = run("apply", update.patch, model, *keep)
        assert (code, f"revert {update.patch} {model} {' '.join(keep)}" in text) == (0, True)
        assert run("revert", update.patch, model, *keep)[0] == 0


def test_a_file_that_is_as_in_the_result_is_changed_on_the_way_back(
    updates: list[Update], tmp_path: Path
) -> None:
    update = updates[0]
    held = update.on("base") | {"merges.txt": b'{"a": 2}'}
    model = write_sides_model(tmp_path / "model", "base", held)
    given = (update.patch, model, "-o", tmp_path / "out", "--keep-side-files")
    assert re.search(r"merges\.txt +as in the result; revert changes it\n", run("apply", *given)[1])
    patchc.revert(update.patch, tmp_path / "out", out=tmp_path / "back")
    assert (tmp_path / "back/merges.txt").read_bytes() == b'{"a": 1}'


def test_a_patch_of_files_alone_writes_nothing_in_place(
    updates: list[Update], tmp_path: Path
) -> None:
    files = updates[1]
    model = write_sides_model(tmp_path / "model", "base", files.on("base"))
    before = tree(model)
    code, told, _ = run("apply", files.patch, model, "--in-place", "--keep-side-files")
    assert (code, tree(model)) == (0, before)
    assert f"apply: nothing written; {files.patch} changes files alone" in told
    code, _, told = run("apply", files.patch, model, "--in-place")
    assert code == UnsupportedInputError.exit_code
    assert re.search("with -o, or give --keep-side-files.*, or ask .*--weights-only$", told.strip())


def test_status_of_a_chain_in_place(updates: list[Update], tmp_path: Path) -> None:
    """Kept side files do not hide that a later patch leads through an earlier one."""
    first = updates[0]
    later = write_sides_model(
        tmp_path / "later", "other", first.on("result") | {"merges.txt": b"third"}
    )
    second = tmp_path / "second.patchc"
    patchc.diff(first.patch.parent / "result", later, out=second, chunk_bits=12)
    model = write_sides_model(tmp_path / "model", "base", first.on("base"))
    assert [one.state for one in patchc.status(model, [first.patch, second]).patches] == [
        "base",
        "before",
    ]
    for patch in (first.patch, second):
        patchc.apply(patch, model, in_place=True, keep_side_files=True)
    found = patchc.status(model, [first.patch, second]).patches
    assert [one.state for one in found] == ["patched", "patched"]
    assert {one.name for one in found[0].side_files} == set(first.files) - {"merges.txt"}
    assert {one.name for one in found[1].side_files} == {"merges.txt"}
    code, text, _ = run("status", model, first.patch, second)
    assert (code, f"patched, and then with {second}; side files differ: " in text) == (0, True)


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
