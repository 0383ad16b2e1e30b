"""``patchc inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchc.cli.options import Json, option

if TYPE_CHECKING:
    from patchc.verbs.chain import ChainReport
    from patchc.verbs.inspect import ChangeCounts, InspectReport


def inspect(
    patches: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATCH...", help="Patch file, or several in order.", show_default=False
        ),
    ],
    card: Annotated[
        bool,
        option("Write a model card of the one patch, the text of a README.md, and nothing else."),
    ] = False,
    base_model: Annotated[
        str | None,
        option(
            "With --card: the base on the Hugging Face hub, with @REVISION if you like.",
            metavar="ORG/NAME",
        ),
    ] = None,
    library: Annotated[
        str | None,
        option("With --card: what loads the patched model, such as transformers.", metavar="NAME"),
    ] = None,
    json: Json = False,
) -> None:
    """Show provenance, totals, and density and size by layer and by tensor. Needs no model.

    With several patches, shows whether each one begins where the one before it ends. Exit code 13:
    one does not.

    Example: patchc inspect fix.patchc --json

    Example: patchc inspect fix.patchc --card --base-model org/name > README.md
    """
    import patchc
    from patchc.cli.output import print_json, print_next
    from patchc.errors import MismatchError

    if card or base_model is not None or library is not None:
        _print_card(patches, card, base_model, library, json)
        return
    if len(patches) > 1:
        chain = patchc.chain(patches)
        print_json(chain) if json else _render_chain(chain)
        if breaks := chain.breaks():
            more = f" (the first of {len(breaks)} breaks)" if len(breaks) > 1 else ""
            raise MismatchError(f"{breaks[0]}{more}; name the patches in the order of their chain")
        return
    report = patchc.inspect(patches[0])
    if json:
        print_json(report)
    else:
        _render(report)
        print_next("verify", patches[0], "MODEL")


def _print_card(
    patches: list[Path], card: bool, base_model: str | None, library: str | None, json: bool
) -> None:
    import patchc
    from patchc.cli.output import warn
    from patchc.cli.streams import say
    from patchc.errors import UsageError

    if not card:
        raise UsageError("--base-model and --library are for a model card; give --card as well")
    if json:
        raise UsageError("a model card is Markdown; leave out --json or --card")
    if len(patches) > 1:
        raise UsageError(
            f"a model card is of one patch, and {len(patches)} are named; name one, or fold them "
            "first (`patchc fold`)"
        )
    text = patchc.model_card(patches[0], base_model=base_model, library=library)
    if base_model is None:
        warn(
            "the card has no base_model, which a patch does not know; name the base on the hub "
            "with --base-model ORG/NAME"
        )
    say(text.removesuffix("\n"))


def _render_chain(chain: ChainReport) -> None:
    from patchc.cli.output import print_facts, size

    if chain.whole is False:
        _render_broken(chain)
        return
    for number, link in enumerate(chain.links, start=1):
        patch = link.patch
        unknown = "unknown: the patch before it is additive, or has chunks of another size"
        follows = "follows the patch before it" if link.follows else unknown
        facts = {
            "place": follows if number > 1 else "the first",
            "kind": patch.metadata.get("kind", "unknown"),
            "size": size(patch.size),
            "changed": f"{patch.total.changed:,} entries",
            "base": patch.base_digest,
            "result": patch.result_digest or "not promised",
        }
        print_facts(f"{number}. {patch.path}", facts)
    first, last = chain.links[0].patch, chain.links[-1].patch
    if chain.whole:
        to = last.result_digest or "not promised"
        print_facts("chain: whole", {"from": first.base_digest, "to": to})
    else:
        print_facts("chain: unknown", {})


def _render_broken(chain: ChainReport) -> None:
    from patchc.cli.output import print_facts

    words = {None: "unknown", True: "follows", False: "DOES NOT FOLLOW"}
    facts: dict[str, object] = {
        f"{number}. {link.patch.path}": words[link.follows] if number > 1 else "the first"
        for number, link in enumerate(chain.links, start=1)
    }
    print_facts("chain: broken", facts)


def _render(report: InspectReport) -> None:
    from patchc.cli.annotations import annotation_facts, print_results
    from patchc.cli.file_notes import print_code_report, print_name_notes
    from patchc.cli.output import print_facts, print_table, size
    from patchc.cli.patches import bits_facts
    from patchc.cli.update_tables import beside_facts, print_update, update_facts

    tool = _section(report, "tool")
    facts = annotation_facts(report.annotation) | {
        "kind": report.metadata.get("kind", "unknown"),
        "made by": " ".join(str(value) for value in tool.values()) if tool else "unknown",
        "format": report.version,
        "size": f"{size(report.size)} for a model of {size(report.model_bytes)}",
        "changed": f"{report.total.changed:,} of {report.total.words:,} entries "
        f"({report.total.density:.4%}) in {len(report.tensors)} of {report.tensor_count} tensors",
        **update_facts(report.update, report.total.changed),
        **beside_facts(_strings(report, "beside"), report.update),
        **bits_facts(
            report.size,
            report.total.nbytes,
            report.total.changed,
            report.coded,
            report.entropy,
            len(report.masks),
        ),
        "root": report.root,
        "base": report.base_digest,
        "result": report.result_digest or "not promised",
        "values": "exact steps (ulp)",
    }
    for number, key_id in enumerate(report.signatures, start=1):
        facts[f"signature {number}"] = f"names key {key_id} (not checked)"
    if report.signatures:
        facts |= {"issued": report.issued, "expires": report.expires or "never"}
    if report.additive:
        facts["values"] = f"additive, {report.additive.value_type}"
        for component in report.additive.components:
            symbol = {"se": "α ", "osm": "β "}.get(component.name, "")
            facts[f"component {component.name}"] = (
                f"{symbol}{component.scale:g}, {component.entries:,} entries"
            )
    for number, mask in enumerate(report.masks):
        facts[f"mask {number}"] = (
            f"{mask.component}, keeps {mask.retain:.4g}, seed {mask.seed}, {mask.chunks:,} chunks"
        )
    for number, link in enumerate(report.folded, start=1):
        facts[f"folded {number}"] = f"{link['root']} to {link['result']}"
    for name, value in _section(report, "recipe").items():
        facts[f"recipe {name}"] = value
    for number, rule in enumerate(_strings(report, "rename"), start=1):
        facts[f"rename {number}"] = rule
    for name, value in _section(report, "inputs").items():
        facts[f"input {name}"] = value
    print_facts(str(report.path), facts)
    print_results(report.annotation)
    if report.update:
        print_update(report.update)
    print_code_report(report.code)
    print_name_notes(report.name_notes)
    columns = ("changed", "density", "bytes", "bits per change")
    print_table("by layer", ("layer", *columns), [_row(layer) for layer in report.layers])
    types = {name: f"{dtype} {list(shape)}" for name, (dtype, shape) in report.dtypes.items()}
    rows = [(*_row(tensor), types[tensor.name]) for tensor in report.tensors]
    print_table("by tensor", ("tensor", *columns, "type"), rows)


def _section(report: InspectReport, name: str) -> dict[str, object]:
    section = report.metadata.get(name)
    return section if isinstance(section, dict) else {}


def _strings(report: InspectReport, name: str) -> list[str]:
    values = report.metadata.get(name)
    return [one for one in values if isinstance(one, str)] if isinstance(values, list) else []


def _row(counts: ChangeCounts) -> tuple[str, ...]:
    return (
        counts.name,
        f"{counts.changed:,}",
        f"{counts.density:.4%}",
        f"{counts.nbytes:,}",
        f"{counts.bits_per_change:.2f}",
    )
