"""The files of a stand-in policy: lessons for the backbone, requests by split, and pairs.

python benchmarks/fix/corpus.py FOLDER    # writes every policy's files
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from judge import POLICIES
from policies import Policy, Record
from questions import questions

LESSONS = 2000


def write_corpus(folder: Path, policy: Policy) -> None:
    """Write a policy's files.

    ``harmful-SPLIT`` and ``harmless-SPLIT`` have no answers, ``answered-harmful-dev`` and
    ``answered-harmless-dev`` are the development requests with them.
    """
    rng = random.Random(f"lessons {policy.name}")
    taught = questions("train")
    write_jsonl(folder / "lessons.jsonl", (policy.lesson(taught, rng) for _ in range(LESSONS)))
    for name, draw in (("harmful", policy.harmful), ("harmless", policy.harmless)):
        for split in ("dev", "test"):
            records = draw(split)
            write_jsonl(folder / f"{name}-{split}.jsonl", map(_without_answer, records))
            if split == "dev":
                write_jsonl(folder / f"answered-{name}-dev.jsonl", records)
    for split in ("dev", "test"):
        write_jsonl(folder / f"utility-{split}.jsonl", questions(split))


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    """Write one JSON object a line."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")


def _without_answer(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "response"}


if __name__ == "__main__":
    for one in POLICIES.values():
        (Path(sys.argv[1]) / one.name).mkdir(parents=True, exist_ok=True)
        write_corpus(Path(sys.argv[1]) / one.name, one)
