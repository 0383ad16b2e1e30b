"""Updates from a stranger: one test for each rejection, and nothing outside the output folder."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from forged_patch import Parts, parts_of, refuse, write_anew
from golden_update import write_golden_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from second_reader import read_index
from tiny_checkpoints import tree

import patchc
from patchc.errors import PatchcError, PatchFormatError, UnsupportedPatchError
from patchc.hashing import bodies_digest, files_digest

GOLDEN = parts_of((Path(__file__).parent / "golden" / "update.patchc").read_bytes())
INDEX = read_index(GOLDEN.index, True)
assert INDEX.update is not None
UPDATE = INDEX.update
HEADER, CONFIG, TEMPLATE = "model.safetensors", "config.json", "chat_template.jinja"


def refuse_to_apply(tmp_path: Path, parts: Parts, match: str) -> None:
    """Refused by apply, and nothing is left or changed anywhere in the test's folder."""
    patch = tmp_path / "x.patchc"
    patch.write_bytes(parts.assemble())
    base, _ = write_golden_models(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(PatchcError, match=match):
        patchc.apply(patch, base, out=tmp_path / "out")
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def file_names(*names: str) -> dict[str, Any]:
    """The columns of three files of these names."""
    return {"file_shared": [0] * len(names), "file_rests": [name.encode() for name in names]}


def with_result(name: str, content: bytes) -> Parts:
    """The example with another content of one file in the result, all digests made to fit."""
    order = (TEMPLATE, CONFIG, HEADER)
    place = order.index(name)
    bodies, at = [], 0
    for length in (*INDEX.lengths, *UPDATE.lengths):
        bodies.append(GOLDEN.bodies[at : at + length])
        at += length
    middles = zlib.decompress(bodies[3 + place])[: UPDATE.base_middles[place]]
    bodies[3 + place] = zlib.compress(middles + content)
    shared = [(0, 0) if i == place else pair for i, pair in enumerate(SHARED)]
    if name == CONFIG:
        bodies[4] = zlib.compress(b'{"vocab": 2}\n' + content)
    if name == HEADER:
        bodies[5] = zlib.compress(middles + b"}" + content)
    grown = {CONFIG: 13, HEADER: UPDATE.base_middles[2] + 1}.get(name, 0)
    contents = {TEMPLATE: b"{{ messages }}\n", CONFIG: b'{"vocab": 3}\n', HEADER: RESULT_HEADER}
    contents[name] = content
    full = [blake3(body).digest() for body in bodies]
    digests = list(INDEX.file_digests)
    digests[0] = [digest[:8] for digest in full[3:]]
    digests[2] = [blake3(contents[key]).digest()[:8] for key in order]
    whole = files_digest((key, blake3(contents[key]).digest()) for key in order)
    parts = GOLDEN.but(bodies=b"".join(bodies)).with_columns(
        bodies_digest=bodies_digest(b"".join(full)),
        file_digests=tuple(digests),
        files_digests=(INDEX.files_digests[0], whole),
    )
    return parts.with_update(
        prefixes=[prefix for prefix, _ in shared],
        suffixes=[suffix for _, suffix in shared],
        base_middles=[grown if i == place else m for i, m in enumerate(UPDATE.base_middles)],
        result_middles=[
            len(content) if i == place else m for i, m in enumerate(UPDATE.result_middles)
        ],
        lengths=[len(body) for body in bodies[3:]],
    )


SHARED = list(zip(UPDATE.prefixes, UPDATE.suffixes, strict=True))
RESULT_HEADER = (
    zlib.decompress(GOLDEN.bodies[-UPDATE.lengths[2] :])[UPDATE.base_middles[2] :] + b" "
)


def test_the_untouched_parts_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "x.patchc"
    path.write_bytes(GOLDEN.assemble())
    with patchc.open_patch(path) as patch:
        patch.check_bodies()
    base, result = write_golden_models(tmp_path)
    patchc.apply(path, base, out=tmp_path / "out")
    assert tree(tmp_path / "out") == tree(result)


def test_the_feature_and_the_columns_need_each_other(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(features=0), "do not add up|shorter|longer|out of range")


def test_an_additive_update_is_refused(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(features=3), "additive values cannot be those of an update")


# Tensors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"fates": [1, 2, 3]}, "neither that it stays nor that it goes"),
        ({"result_dims": [2, 2]}, "said to change its shape and does not"),
        ({"result_dims": [2**62, 2]}, "impossible shape"),
        ({"result_dims": [2**40, 2]}, "'a' grows or shrinks by more than it may"),
        ({"result_ranks": [17], "result_dims": [1] * 17}, "too many dimensions"),
        ({"rests": [b"a", b"new"]}, "'a' is added and is there already"),
        ({"rests": [b"new", b"b"]}, "unique and sorted"),
        ({"rests": [b"b", b"n/w"]}, "unacceptable tensor name"),
        ({"rests": [b"..\\", b"new"]}, "unacceptable tensor name"),
        ({"added": 2**20 + 1}, "above the cap"),
        ({"references": [2, 4, 2, 3]}, "'old' refers to a tensor that is not there"),
        ({"references": [2, 3, 2, 2**32 - 1]}, "'new' refers to a tensor that is not there"),
        ({"references": [2, 1, 2, 3]}, "'old' refers to .* cannot be cast"),
        ({"references": [3, 3, 2, 3]}, "'b' refers to .* cannot be cast"),
        ({"references": [2, 3, 2, 3], "codes": [10, 2]}, "'b' refers to .* cannot be cast"),
        ({"counts": [2, 0]}, "counts do not add up"),
        ({"counts": [0, 0]}, "counts do not add up"),
    ],
)
def test_tensors_that_contradict_each_other(
    tmp_path: Path, columns: dict[str, Any], match: str
) -> None:
    refuse(tmp_path, GOLDEN.with_update(**columns), match)


def test_an_unknown_dtype_is_named(tmp_path: Path) -> None:
    parts = GOLDEN.with_update(codes=[99, 2])
    refuse(tmp_path, parts, "'b' has dtype code 99", UnsupportedPatchError)


def test_a_tensor_that_is_added_and_kept(tmp_path: Path) -> None:
    parts = GOLDEN.with_update(fates=[1, 0, 2], references=[3, 2, 3])
    refuse(tmp_path, parts, "'b' is added and is there already")


def test_an_added_tensor_that_no_disk_holds(tmp_path: Path) -> None:
    """Seen before anything of that size is walked over or created."""
    refuse_to_apply(tmp_path, GOLDEN.with_update(dims=[2, 2**61], counts=[1, 0]), "free")


# Files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../up", "a/../../up", "a//b", "a/", ".", "..", "...", " ", "a/./b", "a\\b",
        "nul\0", "line\n", "x" * 256, "a/" * 16 + "b", "/".join(["x" * 250] * 5), "m.safetensors",
        "below/m.safetensors",
    ],
)  # fmt: skip
def test_names_of_files_that_are_none(tmp_path: Path, name: str) -> None:
    """Each in place of the example's new file, which is a side file."""
    names = sorted([(name.encode(), 2), (b"config.json", 3), (b"model.safetensors", 7)])
    parts = GOLDEN.with_update(
        file_shared=[0, 0, 0],
        file_rests=[name for name, _ in names],
        roles=[role for _, role in names],
        prefixes=[0] * 3, suffixes=[0] * 3, base_middles=[0] * 3, result_middles=[0] * 3,
    )  # fmt: skip
    refuse(tmp_path, parts, "unacceptable file name")


@pytest.mark.parametrize("name", ["below/m.safetensors", "config.json", "m.safetensors/x"])
def test_headers_of_what_is_no_shard(tmp_path: Path, name: str) -> None:
    parts = GOLDEN.with_update(**file_names("a", "b", name))
    refuse(tmp_path, parts, "unacceptable file name")


def test_a_file_of_one_name_with_a_folder(tmp_path: Path) -> None:
    parts = GOLDEN.with_update(**file_names("a", "a/b", "model.safetensors"))
    refuse(tmp_path, parts, "'a' as a file and as a folder")


def test_a_file_listed_twice_is_refused(tmp_path: Path) -> None:
    parts = GOLDEN.with_update(**file_names("a", "a", "model.safetensors"))
    refuse(tmp_path, parts, "unique and sorted")


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"roles": [0, 3, 7]}, "contradicts itself"),
        ({"roles": [4, 3, 7]}, "contradicts itself"),
        ({"roles": [10, 3, 7]}, "contradicts itself"),
        ({"roles": [2, 1, 7]}, "contradicts itself"),
        ({"prefixes": [1, 10, 0]}, "contradicts itself"),
        ({"suffixes": [1, 2, 1]}, "contradicts itself"),
        ({"base_middles": [1, 1, 199]}, "contradicts itself"),
        ({"prefixes": [0, 2**26, 0]}, "above the size cap"),
        ({"suffixes": [0, 2**32 - 1, 1]}, "above the size cap"),
        ({"base_middles": [0, 2**26, 2**26 - 9]}, "above the size cap|size cap"),
        ({"files": 4097}, "above the cap"),
        ({"lengths": [0, 0, 0]}, "fill the space"),
        ({"lengths": [2**32 - 1, 0, 0]}, "fill the space"),
    ],
)
def test_files_that_contradict_themselves_are_refused(
    tmp_path: Path, columns: dict[str, Any], match: str
) -> None:
    refuse(tmp_path, GOLDEN.with_update(**columns), match)


def test_files_above_their_cap_together(tmp_path: Path) -> None:
    middles = {"base_middles": [0, 2**26 - 20, 2**26 - 20], "result_middles": [2**26 - 20, 0, 0]}
    refuse(tmp_path, GOLDEN.with_update(**middles), "files above their size cap")


def test_a_middle_that_its_body_cannot_hold(tmp_path: Path) -> None:
    parts = GOLDEN.with_update(result_middles=[2**25, 1, 207])
    refuse_to_apply(tmp_path, parts, "'chat_template.jinja': the body declares a size")


def test_a_body_that_does_not_expand_is_noticed_by_verify(tmp_path: Path) -> None:
    path = tmp_path / "x.patchc"
    path.write_bytes(GOLDEN.with_update(result_middles=[14, 1, 207]).assemble())
    with pytest.raises(PatchFormatError, match=r"'chat_template\.jinja': the body does not expand"):
        patchc.verify(path)


def test_a_middle_of_another_size(tmp_path: Path) -> None:
    parts = GOLDEN.with_update(result_middles=[16, 1, 207])
    refuse_to_apply(tmp_path, parts, "'chat_template.jinja': the body does not expand")


def test_a_content_that_is_not_the_promised_one(tmp_path: Path) -> None:
    digests = (*INDEX.file_digests[:2], [bytes(8), *INDEX.file_digests[2][1:]])
    parts = GOLDEN.with_columns(file_digests=digests)
    refuse_to_apply(tmp_path, parts, "'chat_template.jinja': its content is not the promised one")


@pytest.mark.parametrize("side", [0, 1])
def test_long_digests_stand_behind_short_ones(tmp_path: Path, side: int) -> None:
    digests = list(INDEX.files_digests)
    digests[side] = bytes(32)
    parts = GOLDEN.with_columns(files_digests=tuple(digests))
    refuse_to_apply(tmp_path, parts, "every file matches and the digest over them does not")


def test_a_damaged_file_body_is_noticed_by_verify(tmp_path: Path) -> None:
    bodies = GOLDEN.bodies[:-1] + bytes([GOLDEN.bodies[-1] ^ 1])
    path = tmp_path / "x.patchc"
    path.write_bytes(GOLDEN.but(bodies=bodies).assemble())
    with pytest.raises(PatchFormatError, match=r"'model\.safetensors': its bytes are damaged"):
        patchc.verify(path)


# Headers ---------------------------------------------------------------------------------------


def header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


A = '"a":{"dtype":"BF16","shape":[3,2],"data_offsets":[0,12]}'
B = '"b":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]}'
NEW = '"new":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}'


def test_another_sound_header_is_taken(tmp_path: Path) -> None:
    text = f'{{"__metadata__":{{"x":"y"}},{NEW},{B},{A}}}'
    (tmp_path / "x.patchc").write_bytes(with_result(HEADER, header(text)).assemble())
    base, _ = write_golden_models(tmp_path)
    patchc.apply(tmp_path / "x.patchc", base, out=tmp_path / "out")
    assert (tmp_path / "out" / HEADER).read_bytes().startswith(header(text))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        header(""),
        header("[]"),
        header('{"a":1}'),
        header('{"a":{"data_offsets":[0]}}'),
        header('{"a":{"data_offsets":["x","y"]}}'),
        header('{"a":{"data_offsets":[0,-5]}}'),
        header(f"{{{A},{B},{NEW}}}")[:-1],
        header(f"{{{A},{B},{NEW}}}") + b"\0",
        header(f"{{{A},{B}}}"),
        header(f"{{{A},{B},{NEW}}}".replace("[3,2]", "[2,3]")),
        header(f"{{{A},{B},{NEW}}}".replace("U8", "I8")),
        header(f"{{{A},{B},{NEW}}}".replace('"new"', '"old"')),
        header(f"{{{A},{B},{NEW}}}".replace("[16,19]", "[0,3]")),
        header(
            f"{{{A},{B},{NEW}}}".replace("[16,19]", "[4611686018427387904,4611686018427387907]")
        ),
        header(f"{{{A},{B},{NEW}}}".replace("U8", "Q8")),
        header("[" * 100_000),
    ],
    ids=range(18),
)
def test_headers_that_do_not_fit(tmp_path: Path, content: bytes) -> None:
    refuse_to_apply(tmp_path, with_result(HEADER, content), ".")


def test_a_side_file_with_another_content_is_written_where_it_should(tmp_path: Path) -> None:
    (tmp_path / "x.patchc").write_bytes(with_result(CONFIG, b"[]").assemble())
    base, _ = write_golden_models(tmp_path)
    patchc.apply(tmp_path / "x.patchc", base, out=tmp_path / "out")
    assert (tmp_path / "out" / CONFIG).read_bytes() == b"[]"


# Anything --------------------------------------------------------------------------------------


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(GOLDEN.index) - 1), byte=st.integers(0, 255))
def test_any_byte_of_the_index_with_a_matching_root(tmp_path: Path, at: int, byte: int) -> None:
    """Read, or refused with one of our errors; what is read back is never another model."""
    path = tmp_path / "mutated.patchc"
    write_anew(path, GOLDEN.with_index(at, bytes([byte])).assemble())
    if not (tmp_path / "base").exists():
        write_golden_models(tmp_path)
    try:
        with patchc.open_patch(path) as patch:
            patch.check_bodies()
        patchc.inspect(path)
        patchc.apply(path, tmp_path / "base", out=tmp_path / f"out{at}-{byte}")
    except PatchcError:
        return
    assert tree(tmp_path / f"out{at}-{byte}") == tree(tmp_path / "result")
