"""Whole updates: tensors that come, go and change their kind, layouts, and files beside them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from hypothesis import given, settings
from tiny_checkpoints import normal, nudge, tree, write_file, write_model
from update_strategies import Side, pairs

import patchc
from patchc.errors import (
    AlreadyPatchedError,
    MismatchError,
    NotPatchedError,
    PartlyPatchedError,
    PatchcError,
    SideFileError,
    UnsupportedInputError,
    WrongBaseError,
)
from patchc.formats.container.layout import UPDATE

SAME = normal((40, 200), "BF16", 1)
BASE = {
    "embed.weight": normal((90, 64), "BF16", 2),
    "gone.weight": normal((70,), "F32", 3),
    "old.name": normal((5000,), "F16", 4),
    "same.weight": SAME,
    "shrinks.weight": normal((90, 64), "BF16", 5),
    "to_bf16.weight": normal((9000,), "F32", 6),
}
TUNED = {
    "new.name": BASE["old.name"],
    "embed.weight": np.concatenate([BASE["embed.weight"], normal((7, 64), "BF16", 7)]),
    "added.weight": normal((70, 3), "F32", 8),
    "same.weight": nudge(SAME, 0.02, 9),
    "shrinks.weight": BASE["shrinks.weight"][:60],
    "to_bf16.weight": BASE["to_bf16.weight"].astype(SAME.dtype),
}
FILES = {"config.json": '{"vocab": 90}', "gone.txt": "x", "assets/same.json": "{}"}
TUNED_FILES = {"config.json": '{"vocab": 97}', "chat.jinja": "{{ }}", "assets/same.json": "{}"}


class Update:
    """Two checkpoints that differ in everything, and the patch between them."""

    def __init__(self, folder: Path) -> None:
        self.base = write_model(folder / "base", BASE, shards=2, side_files=FILES)
        self.tuned = write_model(folder / "tuned", TUNED, shards=3, side_files=TUNED_FILES)
        self.patch = folder / "update.patchc"
        patchc.diff(self.base, self.tuned, out=self.patch, chunk_bits=12)


@pytest.fixture
def update(tmp_path: Path) -> Update:
    return Update(tmp_path)


WITH_CODE = patchc.Trust(allow_code=True)
"""Files of any bytes are drawn, and some of them would be run."""


def _there_and_back(folder: Path, base: Path, tuned: Path) -> Path:
    patch = folder / "between.patchc"
    patchc.diff(base, tuned, out=patch, chunk_bits=12)
    patchc.apply(patch, base, out=folder / "applied", trust=WITH_CODE)
    assert tree(folder / "applied") == tree(tuned)
    patchc.revert(patch, tuned, out=folder / "reverted", trust=WITH_CODE)
    assert tree(folder / "reverted") == tree(base)
    return patch


# Exactness -------------------------------------------------------------------------------------


def test_everything_at_once_comes_back(tmp_path: Path, update: Update) -> None:
    report = patchc.apply(update.patch, update.base, out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == tree(update.tuned)
    assert (len(report.files), report.side_files, report.tensors) == (3, 4, 6)
    assert report.nbytes == sum(f.stat().st_size for f in update.tuned.glob("*.safetensors"))
    report = patchc.revert(update.patch, update.tuned, out=tmp_path / "reverted", threads=1)
    assert tree(tmp_path / "reverted") == tree(update.base)
    assert (len(report.files), report.side_files, report.tensors) == (2, 4, 6)


@settings(max_examples=60)
@given(pairs())
def test_any_pair_there_and_back(pair: tuple[Side, Side]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base, tuned = pair[0].write(root / "base"), pair[1].write(root / "tuned")
        patch = _there_and_back(root, base, tuned)
        differ = tree(base) != tree(tuned)
        assert patchc.verify(patch, base).state == "base"
        assert patchc.verify(patch, tuned).state == ("patched" if differ else "base")
        if differ:
            with pytest.raises(AlreadyPatchedError):
                patchc.apply(patch, tuned, out=root / "twice", trust=WITH_CODE)
            with pytest.raises(NotPatchedError):
                patchc.revert(patch, base, out=root / "twice", trust=WITH_CODE)
        assert sorted(path.name for path in root.iterdir()) == [
            "applied", "base", "between.patchc", "reverted", "tuned",
        ]  # fmt: skip


def test_a_grown_vocabulary_costs_its_new_rows(tmp_path: Path) -> None:
    old = normal((4000, 64), "BF16", 1)
    tuned = {"embed.weight": np.concatenate([nudge(old, 0.001, 2), normal((8, 64), "BF16", 3)])}
    base = write_model(tmp_path / "base", {"embed.weight": old})
    patch = _there_and_back(tmp_path, base, write_model(tmp_path / "tuned", tuned))
    with patchc.open_patch(patch) as opened:
        changed = opened.index.tensors["embed.weight"]
        entries = sum(opened.index.chunk(row).entries for row in changed.chunks)
    assert 512 < entries < 512 + 400
    assert patch.stat().st_size < 4000


def test_renamed_tied_and_untied_tensors_cost_no_entries(tmp_path: Path) -> None:
    head, layer = normal((300, 64), "BF16", 1), normal((9000,), "BF16", 2)
    base = {"embed.weight": head, "model.layer.weight": layer, "tied.weight": layer}
    tuned = {"embed.weight": head, "lm_head.weight": head, "layer.weight": layer}
    patch = _there_and_back(
        tmp_path, write_model(tmp_path / "base", base), write_model(tmp_path / "tuned", tuned)
    )
    report = patchc.inspect(patch)
    assert report.total.changed == 0
    assert report.update is not None
    assert report.update.added == ("lm_head.weight",)
    assert (len(report.update.renamed), len(report.update.removed)) == (1, 1)


def test_a_tensor_that_grows_without_measure(tmp_path: Path) -> None:
    """It becomes two rows, which still share the words that both have."""
    small, rest = normal((50,), "BF16", 1), np.zeros(1 << 21, SAME.dtype)
    base = write_model(tmp_path / "base", {"w": small})
    tuned = write_model(tmp_path / "tuned", {"w": np.concatenate([small, rest])})
    report = patchc.inspect(_there_and_back(tmp_path, base, tuned))
    assert report.total.changed == 0
    assert report.update is not None
    assert report.update.resized == (("w", (50,), (50 + (1 << 21),)),)
    assert report.update.cast == report.update.added == report.update.removed == ()


def test_another_dtype_costs_what_was_rounded_away(tmp_path: Path) -> None:
    exact = normal((5000,), "BF16", 1)
    base = write_model(tmp_path / "base", {"w": exact.astype(np.float32)})
    tuned = write_model(tmp_path / "tuned", {"w": exact})
    report = patchc.inspect(_there_and_back(tmp_path, base, tuned))
    assert report.total.changed == 0
    assert report.update is not None
    assert report.update.cast == (("w", "F32", "BF16"),)


def test_a_change_of_layout_alone_comes_back(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", BASE, shards=1)
    tuned = write_model(tmp_path / "tuned", dict(reversed(BASE.items())), shards=2)
    patch = _there_and_back(tmp_path, base, tuned)
    report = patchc.inspect(patch)
    assert report.base_digest == report.result_digest
    assert report.update is not None
    assert {f.name: f.change for f in report.update.files} == {
        "model.safetensors": "removed",
        "model-00001-of-00002.safetensors": "added",
        "model-00002-of-00002.safetensors": "added",
        "model.safetensors.index.json": "added",
    }


def test_a_small_edit_of_a_large_file_stays_small(tmp_path: Path) -> None:
    words = [str(n) for n in np.random.default_rng(1).integers(0, 2**60, 20_000)]
    text = {"tokenizer.json": json.dumps(words)}
    words.insert(7000, "added token")
    edited = {"tokenizer.json": json.dumps(words)}
    base = write_model(tmp_path / "base", BASE, side_files=text)
    tuned = write_model(tmp_path / "tuned", BASE, side_files=edited)
    assert _there_and_back(tmp_path, base, tuned).stat().st_size < 1000


def test_single_files_come_back(tmp_path: Path) -> None:
    base = write_file(tmp_path / "a.safetensors", BASE)
    tuned = write_file(tmp_path / "b.safetensors", TUNED, {"format": "pt"})
    patch = tmp_path / "u.patchc"
    patchc.diff(base, tuned, out=patch)
    patchc.apply(patch, base, out=tmp_path / "applied")
    assert (tmp_path / "applied").read_bytes() == tuned.read_bytes()
    patchc.revert(patch, tuned, out=tmp_path / "reverted")
    assert (tmp_path / "reverted").read_bytes() == base.read_bytes()
    assert patchc.verify(patch, tuned).state == "patched"


def test_nothing_of_it_leaves_a_plain_patch(tmp_path: Path) -> None:
    sides = [
        write_model(tmp_path / name, {"w": value}, side_files=FILES)
        for name, value in (("base", SAME), ("tuned", nudge(SAME, 0.1, 2)))
    ]
    sizes = [
        patchc.diff(*sides, out=tmp_path / f"{only}.patchc", weights_only=only).size
        for only in (False, True)
    ]
    assert sizes[0] == sizes[1]
    data = (tmp_path / "False.patchc").read_bytes()
    assert data == (tmp_path / "True.patchc").read_bytes()
    assert int.from_bytes(data[-56:-48], "little") & UPDATE == 0


@pytest.mark.parametrize(("weights", "new_weights"), [(0o600, 0o600), (0o777, 0o644)])
def test_file_modes_are_kept(
    tmp_path: Path, update: Update, weights: int, new_weights: int
) -> None:
    """What the model has keeps its bits; what is new gets 0644, and no reader whom weights lack."""
    first = min(update.base.glob("*.safetensors"))
    first.chmod(weights)
    (update.base / "config.json").chmod(0o640)
    patchc.apply(update.patch, update.base, out=tmp_path / "applied")
    modes = {name: mode & 0o777 for name, (mode, _) in tree(tmp_path / "applied").items()}
    assert modes["config.json"] == 0o640
    assert modes["model-00003-of-00003.safetensors"] == new_weights
    assert modes["chat.jinja"] == 0o644


# States ----------------------------------------------------------------------------------------


def test_verify_tells_the_states(update: Update) -> None:
    base, tuned = (patchc.verify(update.patch, model) for model in (update.base, update.tuned))
    assert (base.state, base.files_at_result, base.chunks_at_result) == ("base", 0, 0)
    assert (tuned.state, tuned.files_at_base, tuned.chunks_at_base) == ("patched", 0, 0)
    assert base.files_at_base == tuned.files_at_result == 9


def test_the_other_state_has_a_reason_of_its_own(tmp_path: Path, update: Update) -> None:
    for dry_run in (False, True):
        with pytest.raises(AlreadyPatchedError):
            patchc.apply(update.patch, update.tuned, out=tmp_path / "x", dry_run=dry_run)
        with pytest.raises(NotPatchedError):
            patchc.revert(update.patch, update.base, out=tmp_path / "x", dry_run=dry_run)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"edited"),
        ("config.json", None),
        ("gone.txt", None),
        ("chat.jinja", b"mine"),
        ("chat.jinja", b"{{ }}" * 9999),
        ("model.safetensors.index.json", b" "),
    ],
)
def test_a_file_that_is_not_the_base_s(
    tmp_path: Path, update: Update, name: str, content: bytes | None
) -> None:
    index = (update.base / "model.safetensors.index.json").read_bytes()
    (update.base / name).unlink(missing_ok=True)
    if content is not None:
        edited = index + content if name.endswith("index.json") else content
        (update.base / name).write_bytes(edited)
    report = patchc.verify(update.patch, update.base)
    if name.endswith("index.json"):  # it belongs to the weights
        error: type[PatchcError] = WrongBaseError
        assert (report.state, name in report.difference) == ("neither", True)
    else:
        error = SideFileError
        assert report.state == "base"
        assert [(one.name, one.refused) for one in report.side_files] == [(name, True)]
    for keep in (False, True):
        if error is SideFileError and keep:
            continue
        with pytest.raises(error, match=name):
            patchc.apply(update.patch, update.base, out=tmp_path / "x", keep_side_files=keep)
    assert not (tmp_path / "x").exists()


def test_a_file_that_the_patch_leaves_alone_may_differ(tmp_path: Path, update: Update) -> None:
    (update.base / "assets" / "same.json").write_text("mine")
    patchc.apply(update.patch, update.base, out=tmp_path / "x")
    assert (tmp_path / "x" / "assets" / "same.json").read_text() == "mine"


@pytest.mark.parametrize("name", [*BASE])
def test_every_tensor_of_the_base_is_identified(tmp_path: Path, update: Update, name: str) -> None:
    other = BASE | {name: nudge(BASE[name], 0.01, 5)}
    model = write_model(tmp_path / "other", other, shards=2, side_files=FILES)
    with pytest.raises(WrongBaseError, match=name):
        patchc.apply(update.patch, model, out=tmp_path / "x")
    assert patchc.verify(update.patch, model).state == "neither"


@pytest.mark.parametrize("name", [*TUNED])
def test_every_tensor_of_the_result_is_identified(
    tmp_path: Path, update: Update, name: str
) -> None:
    other = TUNED | {name: nudge(TUNED[name], 0.01, 5)}
    model = write_model(tmp_path / "other", other, shards=3, side_files=TUNED_FILES)
    with pytest.raises(WrongBaseError, match=name):
        patchc.revert(update.patch, model, out=tmp_path / "x")
    assert patchc.verify(update.patch, model).state == "neither"


def test_a_partly_patched_model_is_refused(tmp_path: Path, update: Update) -> None:
    mixed = BASE | {"same.weight": TUNED["same.weight"]}
    model = write_model(tmp_path / "mixed", mixed, shards=2, side_files=FILES)
    assert patchc.verify(update.patch, model).state == "partly patched"
    with pytest.raises(PartlyPatchedError):
        patchc.apply(update.patch, model, out=tmp_path / "x")


# Refusals and reports --------------------------------------------------------------------------


def test_a_file_above_the_cap_is_refused_where_it_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("patchc.formats.container.file_changes", "patchc.patching.side_files"):
        monkeypatch.setattr(f"{module}.MAX_FILE", 4000)
    side = {"large.txt": "x" * 4001}
    base = write_model(tmp_path / "base", {"w": SAME}, side_files=side)
    same = write_model(tmp_path / "same", {"w": nudge(SAME, 0.1, 1)}, side_files=side)
    patchc.diff(base, same, out=tmp_path / "fine.patchc")
    tuned = write_model(tmp_path / "tuned", {"w": SAME}, side_files={"large.txt": "y" * 4001})
    with pytest.raises(UnsupportedInputError, match=r"large\.txt.*--weights-only"):
        patchc.diff(base, tuned, out=tmp_path / "update.patchc")
    assert not (tmp_path / "update.patchc").exists()
    patchc.diff(base, tuned, out=tmp_path / "weights.patchc", weights_only=True)


def test_a_file_whose_name_is_no_utf_8_is_refused_where_it_differs(tmp_path: Path) -> None:
    name = os.fsdecode(b"notes\xff.txt")
    base = write_model(tmp_path / "base", {"w": SAME}, side_files={name: "1"})
    same = write_model(tmp_path / "same", {"w": nudge(SAME, 0.1, 1)}, side_files={name: "1"})
    _there_and_back(tmp_path, base, same)
    tuned = write_model(tmp_path / "tuned", {"w": SAME}, side_files={name: "2"})
    with pytest.raises(UnsupportedInputError, match=r"notes.*rename it"):
        patchc.diff(base, tuned, out=tmp_path / "update.patchc")


def test_a_folder_and_a_file_need_the_same_tensors(tmp_path: Path, update: Update) -> None:
    one = write_file(tmp_path / "one.safetensors", TUNED)
    with pytest.raises(MismatchError):
        patchc.diff(update.base, one, out=tmp_path / "x.patchc")


def test_one_file_cannot_take_a_change_of_files(tmp_path: Path, update: Update) -> None:
    one = write_file(tmp_path / "one.safetensors", BASE)
    for verb in (patchc.apply, patchc.revert):
        with pytest.raises(UnsupportedInputError, match="name the folder"):
            verb(update.patch, one, out=tmp_path / "x")
    with pytest.raises(UnsupportedInputError, match="name the folder"):
        patchc.verify(update.patch, one)


def test_inspect_lists_what_changes(update: Update) -> None:
    report = patchc.inspect(update.patch).update
    assert report is not None
    assert report.added == ("added.weight",)
    assert report.removed == ("gone.weight",)
    assert report.renamed == (("old.name", "new.name"),)
    assert report.resized == (
        ("embed.weight", (90, 64), (97, 64)),
        ("shrinks.weight", (90, 64), (60, 64)),
    )
    assert report.cast == (("to_bf16.weight", "F32", "BF16"),)
    changes = {file.name: file.change for file in report.files if not file.is_header}
    assert changes == {
        "chat.jinja": "added",
        "config.json": "changed",
        "gone.txt": "removed",
        "model.safetensors.index.json": "changed",
    }
    assert sum(file.is_header for file in report.files) == 5


def test_inspect_on_the_command_line(update: Update) -> None:
    code, text, _ = run("inspect", update.patch)
    assert code == 0
    for word in ("old.name", "to new.name", "chat.jinja", "F32 to BF16", "[90, 64] to [97, 64]"):
        assert word in text
    code, text, _ = run("inspect", update.patch, "--json")
    assert json.loads(text)["update"]["renamed"] == [["old.name", "new.name"]]


def test_verify_and_diff_on_the_command_line(tmp_path: Path, update: Update) -> None:
    code, text, _ = run("verify", update.patch, update.tuned)
    assert code == 0
    assert "0 base, 9 patched" in text
    out = tmp_path / "x.patchc"
    code, _, error = run("diff", update.base, update.tuned, "-o", out, "--weights-only")
    assert code == 13
    assert "--weights-only" in error or "missing" in error
