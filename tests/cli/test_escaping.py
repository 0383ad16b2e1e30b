"""What a stranger wrote, on the screen: everything that a terminal acts on is written out."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from forged_patch import golden_parts
from golden_patch import METADATA, TENSORS
from terminals import printed, screens
from tiny_checkpoints import PatchedModel, Raw, write_model
from tiny_llama import write_data

from patchc.dtypes import BY_NAME

HOSTILE = {
    "colour": "\x1b[31mred\x1b[0m",
    "screen": "\x1b[2J\x1b[1;1H",
    "title": "\x1b]0;title\x07",
    "link": "\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\",
    "C1": "\x9b31m\x90q\x9c",
    "back": "safe\b\b\b\bevil\x7f",
    "over": "verified\rrefused",
    "line": "x\npatchc: verified, nothing is wrong",
    "lines": "a\u2028b\u2029c\x0bd\x0ce\x85f",
    "override": "\u202egnp.exe\u202c",
    "isolates": "\u2066\u2067x\u2069\u200e\u200f\u061c",
    "no width": "ver\u200bi\u200cf\u200di\u2060e\ufeffd\xad",
    "blanks": "\xa0\u3000\u2003\u3164\u2800\u115f\u034f",
    "tags": "\U000e0041\U000e007f",
    "private": "\ue000\U0010ffff\ufffe",
    "marks": "z" + "\u0301" * 60,
    "markup": "[red]x[/red][link=http://x]y[/link] $\\frac{1}{2}$ :smile:",
}
EVERYTHING = "|".join(HOSTILE.values())
IN_A_NAME = "\x1b[31m\x9b2J\x07\r\n\x7f\u202e\u2066\u200b\u2028\u3164\U000e0041[red]x[red]$x$"
PRINTABLE = "z" + "\u0301" * 60 + "[red]x[red] $x$\u3164\u2800"
"""What the format lets the name of a tensor be."""

BLANK = "\u3164\u2800\u115f\u1160\uffa0\u034f"
VISIBLE = r"\x1b[31m"


def check_clean(text: str) -> None:
    """Whether a screen shows every character of a text, each in its place."""
    marks = 0
    for character in text.replace("\n", ""):
        category = unicodedata.category(character)
        assert category[0] != "C", ascii(character)
        assert category[0] != "Z" or character == " ", ascii(character)
        assert character not in BLANK, ascii(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        assert marks <= 4


def shown(*arguments: object) -> tuple[int, str]:
    """All that a command prints; its text is clean, and its JSON has no raw character either."""
    code, out, err = run(*arguments)
    check_clean(out)
    check_clean(err)
    for line in err.splitlines():
        assert line.startswith(("patchc: ", "  ", "Usage", "Try", "╭", "│", "╰")), line
    return code, out + err


def held(*arguments: object) -> Any:
    """The JSON that a command prints."""
    code, out, err = run(*arguments, "--json")
    check_clean(out)
    check_clean(err)
    assert code == 0, err
    return json.loads(out)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in [*value, *(value.values() if isinstance(value, dict) else ())]:
            yield from texts(one)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_metadata_of_a_patch(tmp_path: Path, text: str) -> None:
    metadata = {
        **METADATA,
        "kind": text,
        "tool": {"name": text, text: text, "version": [text, {text: text}]},
        "annotation": {"name": text, "note": text, "results": {"source": text, "judge": text}},
        "recipe": {"method": text, text: [text], "overrides": [{"match": text, text: 1}]},
        "tuned": {text: text},
        "statistics": {text: {text: 1}},
        text: text,
    }
    patch, other = tmp_path / "a.patchc", tmp_path / "b.patchc"
    parts = golden_parts().but(metadata=json.dumps(metadata).encode())
    for path in (patch, other):
        path.write_bytes(parts.assemble())
    code, out = shown("inspect", patch)
    assert code == 0
    assert out.count("made by") == 1
    assert text in set(texts(held("inspect", patch)))
    assert shown("inspect", patch, other)[0] == 13
    base = {
        name: Raw(dtype, shape, np.array(words, BY_NAME[dtype].word).tobytes())
        for name, (dtype, shape, words, _) in TENSORS.items()
    }
    model = write_model(tmp_path / "model", base)
    assert shown("status", model, patch, other)[0] == 0
    for more in (["--dry-run"], ["-v"], ["--json"]):
        assert shown("apply", patch, model, "-o", tmp_path / f"out{more[0]}", *more)[0] == 0
    assert shown("verify", patch, model)[0] == 0
    assert shown("fold", patch, patch, "-o", tmp_path / "folded.patchc")[0] == 13
    assert shown("annotate", patch, "--name", "x", "-o", tmp_path / "named.patchc")[0] == 0
    assert shown("report", patch, "-o", tmp_path / "page.html")[0] == 0


def test_names_of_files_and_folders(patched: PatchedModel) -> None:
    here = patched.base.parent / f"here {IN_A_NAME}"
    here.mkdir()
    base, tuned, patch = (
        one.rename(here / f"{IN_A_NAME}{one.name}")
        for one in (patched.base, patched.tuned, patched.patch)
    )
    for model in (base, tuned):
        (model / f"{IN_A_NAME}.txt").write_text("beside")
    out = here / f"out{IN_A_NAME}"
    commands: Sequence[tuple[int, Sequence[object]]] = [
        (0, ("inspect", patch)),
        (0, ("verify", patch, base)),
        (0, ("verify", patch, tuned)),
        (0, ("status", base, patch)),
        (0, ("apply", patch, base, "-o", out, "--dry-run")),
        (0, ("apply", patch, base, "-o", out, "-v")),
        (11, ("apply", patch, base, "-o", out)),
        (8, ("apply", patch, tuned, "-o", here / "x")),
        (9, ("revert", patch, base, "-o", here / "x")),
        (0, ("revert", patch, out, "-o", here / f"back{IN_A_NAME}")),
        (0, ("diff", base, tuned, "-o", here / f"again{IN_A_NAME}")),
        (13, ("fold", patch, patch, "-o", here / "x")),
        (0, ("annotate", patch, "--name", "x", "-o", here / f"named{IN_A_NAME}")),
        (0, ("report", patch, "-o", here / f"page{IN_A_NAME}")),
        (3, ("apply", patch, here / IN_A_NAME, "-o", here / "x")),
        (5, ("apply", base, patch, "-o", here / "x")),
        (5, ("verify", here / IN_A_NAME)),
        (2, ("verify", patch, "--config", here / IN_A_NAME)),
        (2, ("build", base, "--se", tuned, "--osm", tuned, "-o", here / "x", "--recipe", out)),
        (13, ("build", base, "--se", tuned, "--osm", tuned, "-o", here / "x")),
        (18, ("evaluate", "--harmful", out, "--harmless", out, "--generations", out)),
        (0, ("apply", patch, base, "--in-place", "-v")),
    ]
    for expected, arguments in commands:
        code, text = shown(*arguments)
        assert code == expected, (arguments[0], text)
        assert VISIBLE in text or "-v" in arguments or not text, (arguments[0], text)
    assert IN_A_NAME in "".join(texts(held("status", base, patch)))


def test_names_of_tensors(tmp_path: Path) -> None:
    words = np.arange(6, dtype=np.float32)
    name = f"model.layers.0.{PRINTABLE}.weight"
    base = write_model(tmp_path / "base", {name: words, f"gone{PRINTABLE}": words})
    tuned = write_model(tmp_path / "tuned", {name: words + 1, f"new{PRINTABLE}": words})
    patch = tmp_path / "fix.patchc"
    assert shown("diff", base, tuned, "-o", patch, "-v")[0] == 0
    code, out = shown("inspect", patch)
    assert code == 0
    assert "[red]x[red] $x$" in out
    assert name in set(texts(held("inspect", patch)))
    assert shown("apply", patch, base, "-o", tmp_path / "out")[0] == 0
    other = write_model(tmp_path / "other", {name: words + 2, f"gone{PRINTABLE}": words})
    assert shown("apply", patch, other, "-o", tmp_path / "x")[0] == 7
    unprintable = write_model(tmp_path / "bad", {name + EVERYTHING: words})
    assert shown("diff", unprintable, tuned, "-o", tmp_path / "x")[0] != 0
    assert shown("build", base, "--tuned", unprintable, "--recipe", "ties", "-o", tmp_path / "x")[0]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_recipes_options_and_files_of_options(tmp_path: Path, text: str) -> None:
    quoted = json.dumps(text).replace("\x7f", "\\u007f")
    recipe, config = tmp_path / "recipe.toml", tmp_path / "config.toml"
    build = ("build", "base", "--se", "se", "--osm", "osm", "-o", tmp_path / "x")
    for line in (
        f"{quoted} = 1", f"method = {quoted}", f"alpha = {quoted}", f"include = ['(', {quoted}]",
        f"overrides = [{{match = {quoted}}}]", f"overrides = [{{{quoted} = {quoted}}}]",
    ):  # fmt: skip
        recipe.write_bytes(line.encode("utf-8", "surrogatepass"))
        assert shown(*build, "--recipe", recipe)[0] == 2
    for line in (f"[{quoted}]", f"[build]\n{quoted} = 1", f"[build]\nalpha = {quoted}"):
        config.write_text(line, encoding="utf-8", errors="surrogatepass")
        assert shown(*build, "--config", config)[0] == 2
    for more in (["--alpha", text], ["--scope", text], [f"--{text}"], ["--include", f"({text}"]):
        assert shown(*build, *more)[0] == 2
    assert shown(f"-{text}")[0] == 2
    assert shown(text)[0] == 2
    assert shown("warm-up", text)[0] == 2


def test_requests_their_kinds_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = {"prompt": EVERYTHING, "kind": EVERYTHING, "id": EVERYTHING, "group": EVERYTHING}
    sets = ["--harmful", write_data(Path("h"), [line]), "--harmless", write_data(Path("s"), [line])]
    replies = write_data(Path(f"r{IN_A_NAME}"), [{"prompt": EVERYTHING, "reply": EVERYTHING}])
    code, text = shown("evaluate", *sets, "--generations", replies, "-o", "out.jsonl")
    assert code == 0, text
    assert VISIBLE in text
    check_clean(Path("out.jsonl").read_text(encoding="utf-8").replace(HOSTILE["marks"], ""))
    report = held("evaluate", *sets, "--generations", replies)
    assert {EVERYTHING, replies.name} <= set(texts(report))
    for judge in (EVERYTHING, f"{EVERYTHING}:x", f"hf:{EVERYTHING}", f"json:{EVERYTHING}"):
        assert shown("evaluate", *sets, "--generations", replies, "--judge", judge)[0] != 0
    for wrong in ({EVERYTHING: EVERYTHING}, {"prompt": [EVERYTHING]}, {"prompt": ""}):
        write_data(Path("h"), [wrong])
        assert shown("evaluate", *sets, "--generations", replies)[0] == 18


LONG = 1_000_000 * "x"


def test_no_message_is_longer_than_a_screen(tmp_path: Path) -> None:
    """Whatever a value is, its message has at most some two thousand characters."""
    build = ("build", "base", "--se", "se", "--osm", "osm", "-o", tmp_path / "x")
    commands: list[Sequence[object]] = [
        (LONG,), (f"--{LONG}",), ("apply", LONG, LONG, "-o", "x"), ("verify", LONG),
        ("verify", "x", "--config", LONG), (*build, "--alpha", LONG), (*build, "--scope", LONG),
        (*build, "--recipe", LONG), (*build, "--include", f"({LONG}"), (*build, "--seed", LONG),
        ("warm-up", LONG), ("warm-up", 300_000 * "\x1b"), ("warm-up", EVERYTHING),
    ]  # fmt: skip
    lines = (f"{LONG} = 1", f"method = '{LONG}'", f"alpha = '{LONG}'", f"include = ['({LONG}']")
    for number, line in enumerate(lines):
        recipe = tmp_path / f"{number}.toml"
        recipe.write_text(line)
        commands.append((*build, "--recipe", recipe))
    for arguments in commands:
        code, text = shown(*arguments)
        assert code != 0
        assert len(text) < 3500, arguments[0]  # some of it is the frame of a message


def test_a_table_with_long_names_stays_in_proportion(tmp_path: Path) -> None:
    metadata = {**METADATA, "recipe": {f"k{n}": n for n in range(5000)} | {3000 * "k": LONG}}
    patch = tmp_path / "a.patchc"
    patch.write_bytes(golden_parts().but(metadata=json.dumps(metadata).encode()).assemble())
    code, text = shown("inspect", patch)
    assert code == 0
    assert len(text) < 200_000
    assert max(map(len, text.splitlines())) < 6000


SCRIPT = r"""
import logging, sys, warnings
from patchc.cli.streams import drawing_stream, protect_streams, say
protect_streams()
text = sys.argv[1]
warnings.warn(text)
logging.error("logged %s", text)
print(text, file=sys.stderr)
say(text)
print("\x1b[31mcolour\x1b[0m", file=sys.stderr)
drawing_stream().write("\x1b[2K")
"""


def test_libraries_warn_there_too() -> None:
    text = HOSTILE["title"] + HOSTILE["override"] + "\x1b[31m"
    done = subprocess.run([sys.executable, "-c", SCRIPT, text], capture_output=True, check=True)
    out, err = done.stdout.decode(), done.stderr.decode()
    check_clean(out)
    check_clean(err.removesuffix("\x1b[2K"))
    assert err.count(r"\x1b]0;title\x07\u202egnp.exe\u202c\x1b[31m") == 3
    assert r"\x1b[31mcolour\x1b[0m" in err


def test_libraries_may_use_tabs_and_draw_bars() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "a\tb\r50 %\r\n"], capture_output=True, check=True
    )
    assert b"a       b\n50 %\n" in done.stderr
    assert b"\\t" not in done.stderr


BAR = r"""
import sys, warnings
from patchc.cli.showing_progress import _bar
from patchc.cli.streams import protect_streams
from patchc.cli.voice import Voice
protect_streams()
with _bar(Voice(command="apply")):
    for text in sys.argv[1:]:
        warnings.warn(text)
        print(text)
        print(text, file=sys.stderr)
"""


def test_libraries_warn_above_a_bar() -> None:
    texts = ["\x9b2J", HOSTILE["link"], HOSTILE["override"], HOSTILE["title"]]
    text = printed(90, BAR, *texts)
    assert not set(text) & set("\x07\x9b\u202e")
    assert "\x1b]" not in text
    for told in (r"\x9b2J", r"\x1b]8;;http://x", r"\u202egnp", r"\x1b]0;title\x07"):
        assert text.count(told) == 3, ascii(text)


def test_a_terminal_is_not_driven(patched: PatchedModel) -> None:
    """Progress bars, reports and errors on a terminal: what is left when its own is taken out."""
    named = patched.base.rename(patched.base.with_name(f"m{IN_A_NAME}"))
    text = "".join(
        screens(
            90,
            [
                ("apply", patched.patch, named, "-o", named.with_name(f"out{IN_A_NAME}"), "-v"),
                ("apply", patched.patch, named.with_name(IN_A_NAME), "-o", "x"),
                ("verify", patched.patch, named),
                ("build", "x", "--alpha", IN_A_NAME.replace("\n", "")),
            ],
            errors=True,
        )
    )
    assert text.count(VISIBLE) >= 3
    assert not set(text.replace("\r", "")) & set("\x07\x7f\x9b\u202e\u2066\u200b\u2028\u3164")
    assert "\x1b]" not in text


def test_a_figure_shows_names_and_no_formulas(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from patchc.evaluation.drawing import label

    for text in (EVERYTHING, "$\\frac{$", "_$x^2$", "\\$x$", LONG, ""):
        figure = Figure((1, 1))
        axes = figure.add_subplot()
        axes.plot([1], [1], label=label(text))
        axes.set_xlabel(label(text))
        figure.savefig(tmp_path / "x.png")
        assert len(axes.get_xlabel()) < 1000
        check_clean(axes.get_xlabel())
