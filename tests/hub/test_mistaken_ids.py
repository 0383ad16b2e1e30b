"""Texts that are nearly hub ids, and ids where they do harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_caches import COMMIT, write_cached

import patchc
from patchc.errors import MissingCheckpointError, OutputError, PatchFormatError, UsageError
from patchc.hub_models import local_model


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/org/chat", "https:/huggingface.co/org/chat", "hf://org/chat",
        "hf:org/chat", "org/chat@",
    ],
)  # fmt: skip
def test_what_is_nearly_an_id(cache: Path, text: str) -> None:
    with pytest.raises(MissingCheckpointError, match=r"the model's hub id is written org/chat$"):
        local_model(text)
    Path(text).mkdir(parents=True)
    assert local_model(text) == text
    assert not cache.exists()


def test_the_start_of_a_commit_is_completed(cache: Path, source: Path) -> None:
    write_cached(cache, "org/chat", source)
    whole = f"all of its 40 digits: write org/chat@{COMMIT}"
    for start in (COMMIT[:7], COMMIT.upper()):
        with pytest.raises(MissingCheckpointError, match=whole):
            local_model(f"org/chat@{start}")


def test_a_hub_id_where_a_patch_is_taken(cache: Path, source: Path) -> None:
    write_cached(cache, "org/chat", source)
    for text, swapped in (("org/chat", True), ("org/chat@v1", True), ("org/chatt", False)):
        with pytest.raises(PatchFormatError) as caught:
            patchc.verify(text, source)
        assert ("patch and model may be swapped" in str(caught.value)) == swapped


@pytest.mark.parametrize("out", ["org/chat", "./org//chat", "org/chat@v1", "org/chat/new"])
def test_an_output_that_would_hide_the_model(cache: Path, source: Path, out: str) -> None:
    """From then on, its name would stand for the output, since a local path wins."""
    write_cached(cache, "org/chat", source, revision="v1")
    for written in (out, Path(out)):
        with pytest.raises(OutputError, match=r"is spelled as the hub id .* choose another name"):
            patchc.diff("org/chat@v1", source, out=written)
    assert not Path("org").exists()
    patchc.diff("org/chat@v1", source, out="org-chat.patchc")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("spec", ["", "=bad"])
def test_a_judge_without_a_name(spec: str) -> None:
    from patchc.evaluation.classifier import open_classifier

    with pytest.raises(UsageError, match="a path is empty"):
        open_classifier(spec, "cpu")
