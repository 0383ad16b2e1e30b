"""The patch itself: what it is of, how it was made, who signed it, and what else it brings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from patchc.report_page.blocks import (
    Block,
    Cell,
    Code,
    Facts,
    Lines,
    Number,
    Section,
    Subsection,
    Table,
    Text,
)
from patchc.report_page.labels import titled
from patchc.report_page.numbers import count, json_value, nbytes, percent, real
from patchc.verbs.inspect import InspectReport
from patchc.verbs.updates import UpdateReport

_MOST_ROWS = 100


def patch_section(patch: InspectReport) -> Section:
    """Which model it is for, what it makes of it, and what it says about itself."""
    result = patch.result
    facts: list[tuple[str, Cell]] = [
        ("file", (patch.path.name,)),
        ("root", (Code(patch.root),)),
        ("base", (Code(patch.base_digest),)),
        ("result", (Code(patch.result_digest) if patch.result_digest else "not promised",)),
        ("kind", json_value(patch.metadata.get("kind", "unknown"))),
        (
            "size",
            (*nbytes(patch.size), ", ", _share(patch.size, patch.model_bytes), " of the model's ",
             *nbytes(patch.model_bytes)),
        ),
        (
            "changed",
            (count(result.changed), " of ", count(result.words), " entries (",
             percent(result.density, 4), ") in ", count(result.changed_tensors), " of ",
             count(result.tensors), " tensors"),
        ),
        ("values", (_values(patch),)),
        ("format", (patch.version,)),
    ]  # fmt: skip
    blocks: list[Block] = [Facts(facts)]
    if patch.annotation.name:
        blocks.append(Text(("Its writer calls it: ", patch.annotation.name)))
    if patch.annotation.note:
        blocks.append(Subsection("What its writer says", [Lines(patch.annotation.note)]))
    blocks += [_signatures(patch), *_code(patch)]
    if patch.update:
        blocks.append(_update(patch.update))
    if patch.name_notes:
        rows = [((", ".join(one.names),), (one.reason,)) for one in patch.name_notes]
        blocks.append(_table("Names that not every system can have", ("name", "why"), rows))
    return Section("patch", "The patch", blocks)


def origin_section(patch: InspectReport) -> Section:
    """The recipe with its seeds, what each component is, and the digests of what it was made of."""
    metadata = patch.metadata
    blocks: list[Block] = [Text((
        "From the patch's own metadata: nothing vouches for it but who signed the file.",
    ))]  # fmt: skip
    recipe = dict(_section(metadata, "recipe"))
    overrides = recipe.pop("overrides", None)
    if recipe:
        blocks.append(_object("Recipe", recipe))
    if isinstance(overrides, list) and overrides:
        blocks.append(_overrides(overrides))
    if patch.additive:
        additive = [
            ((one.name,), (real(one.scale),), (count(one.entries),))
            for one in patch.additive.components
        ]
        heads = ("component", "scale", "entries")
        blocks.append(_table("Additive components", heads, additive))
    if patch.masks:
        masks = [
            ((one.component,), (percent(one.retain, 4),), (count(one.seed),), (count(one.chunks),))
            for one in patch.masks
        ]
        headings = ("component", "keeps", "seed", "chunks")
        blocks.append(_table("Seeded masks", headings, masks))
    for name, title in (
        ("inputs", "What it was made of"),
        ("tool", "What made it"),
    ):
        if content := _section(metadata, name):
            blocks.append(_object(title, content))
    if patch.folded:
        folded = [
            ((count(number),), (Code(one["root"]),), (Code(one["result"]),))
            for number, one in enumerate(patch.folded, start=1)
        ]
        blocks.append(_table("Patches folded into it", ("turn", "root", "result"), folded))
    return Section("origin", "How it was made", blocks)


def _signatures(patch: InspectReport) -> Subsection:
    # The name may be a stranger's: pasted into a shell it stays a file's name.
    name = shlex.quote(f"./{patch.path.name}" if patch.path.name[:1] == "-" else patch.path.name)
    checks = Text((
        "This page checks no signature. ", Code(f"patchc verify {name} --trusted KEY"),
        " does, and ", Code(f"patchc inspect {name}"), " shows what a signature names.",
    ), "note")  # fmt: skip
    if not patch.signatures:
        return Subsection("Signatures", [Text(("The file holds no signature.",)), checks])
    rows: list[tuple[str, Cell]] = [
        (f"signature {number}", ("names key ", Code(key_id)))
        for number, key_id in enumerate(patch.signatures, start=1)
    ]
    rows += [("issued", (patch.issued or "",)), ("expires", (patch.expires or "never",))]
    return Subsection("Signatures", [Facts(rows), checks])


def _code(patch: InspectReport) -> list[Block]:
    blocks: list[Block] = []
    if patch.code.files:
        rows = [((one.name,), (one.written_by,), (one.reason,)) for one in patch.code.files]
        heads = ("file", "written by", "why")
        blocks.append(_table("Code: files that a loader or an interpreter runs", heads, rows))
    if patch.code.unchecked:
        unchecked = [((name,),) for name in patch.code.unchecked]
        title = "Perhaps code: the patch holds only a part of each, and apply checks the whole"
        blocks.append(_table(title, ("file",), unchecked))
    if not blocks:
        blocks.append(Text(("It brings no file that a loader or an interpreter runs.",)))
    return [Subsection("Code", blocks)]


def _update(update: UpdateReport) -> Subsection:
    rows: list[tuple[Cell, ...]] = [(("added",), (name,), ()) for name in update.added]
    rows += [(("removed",), (name,), ()) for name in update.removed]
    rows += [(("renamed",), (old,), (f"to {new}",)) for old, new in update.renamed]
    rows += [
        (("resized",), (name,), (f"{list(old)} to {list(new)}",))
        for name, old, new in update.resized
    ]
    rows += [(("another dtype",), (name,), (f"{old} to {new}",)) for name, old, new in update.cast]
    files = [
        (
            (f"{one.change}, header" if one.is_header else one.change,),
            (one.name,),
            (count(one.base_size), " to ", count(one.result_size), " bytes"),
        )
        for one in update.files
    ]
    blocks: list[Block] = []
    if rows:
        blocks.append(_table("Tensors", ("what", "tensor", "how"), rows))
    if files:
        blocks.append(_table("Files", ("what", "file", "size"), files))
    return Subsection("What the update changes besides", blocks)


def _overrides(overrides: list[object]) -> Block:
    rows = []
    for one in overrides:
        values = dict(one) if isinstance(one, dict) else {}
        match = values.pop("match", "")
        rows.append((json_value(match), json_value(values)))
    heads = ("tensors that match", "values")
    return replace(_table("Other values for some tensors", heads, rows), is_folded=True)


def _object(title: str, content: Mapping[str, object]) -> Block:
    rows = [((name,), json_value(value)) for name, value in content.items()]
    return _table(title, ("name", "value"), rows)


def _table(title: str, heads: tuple[str, ...], rows: Sequence[Sequence[Cell]]) -> Table:
    """A table of at most a hundred rows that says how many more there are."""
    shown = rows[:_MOST_ROWS]
    return Table(titled(title, len(shown), len(rows)), heads, shown)


def _values(patch: InspectReport) -> str:
    return f"additive, {patch.additive.value_type}" if patch.additive else "exact steps"


def _share(part: int, whole: int) -> Number:
    return percent(part / whole if whole else 0.0, 3)


def _section(metadata: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = metadata.get(name)
    return section if isinstance(section, dict) else {}
