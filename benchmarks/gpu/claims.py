"""What the documents say that only a device can settle, and the figures that settle it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu.report import cell, heading
from gpu.timed_parts import Outcome


@dataclass(frozen=True)
class Claim:
    """Words of a document, and the row of a part's table beside which they stand or fall."""

    document: str
    words: str
    part: str
    table: str
    row: str
    columns: tuple[str, ...]

    def measured(self, outcomes: Sequence[Outcome]) -> str:
        """The figures, or nothing where the run does not have them."""
        for outcome in outcomes:
            if outcome.name == self.part:
                for row in outcome.tables.get(self.table, []):
                    if row["name"] == self.row:
                        held = [name for name in self.columns if name in row]
                        return ", ".join(
                            f"{heading(name)} {cell(name, row[name])}" for name in held
                        )
        return ""


def _tests(document: str, words: str) -> Claim:
    return Claim(
        document, words, "tests", "tests", "all", ("passed", "failed", "errors", "skipped")
    )


def _kernel(row: str, words: str) -> Claim:
    columns = ("milliseconds", "share_of_a_copy")
    return Claim("benchmarks/README.md", words, "kernels", "kernels", row, columns)


def _stream(row: str, words: str, document: str = "benchmarks/README.md") -> Claim:
    columns = ("device_seconds", "cpu_seconds", "slowest_pipe", "share_of_that_pipe")
    return Claim(document, words, "streaming", "through the device", row, columns)


def _hot_patch(words: str, column: str, document: str = "benchmarks/README.md") -> Claim:
    return Claim(document, words, "hot-patch", "hot patch", "live words read back", (column,))


BUILD = "build, chunks of 2^20 words"
CLAIMS = (
    _tests("README.md", "It has not run on a GPU yet"),
    _tests(
        "docs/explanation/design/device-kernels.md", "Both give the same bits as `reference.py`."
    ),
    _tests("benchmarks/README.md", "bit-identical to its oracle under Triton's interpreter"),
    Claim(
        *("benchmarks/README.md", "an assumed copy bandwidth of 4 TB/s (one H200)"),
        *("kernels", "copies", "within the device", ("terabytes_per_second",)),
    ),
    _kernel("snip, bf16", "| SNIP, bf16 | 12 | 0.20 ms |"),
    _kernel("histogram pass", "| histogram pass, p = 0.3 | 4 | 0.07 ms |"),
    _kernel("top-k mask, tensor", "| top-k mask of a tensor | 13 | 0.22 ms |"),
    _kernel("top-k mask, rows", "| top-k mask of rows of 4096 | 5 | 0.08 ms |"),
    _kernel("fused select", "| fused select, 1 % each | 9.7 | 0.16 ms |"),
    _kernel("additive, per delta", "| additive, per delta | 74 | 0.01 ms |"),
    Claim(
        *("benchmarks/README.md", "reading less is not expected to give 20 times its"),
        *("kernels", "exact top-k", "beside torch.topk", ("times",)),
    ),
    Claim(
        *("benchmarks/README.md", "derives a 7B shape within 8 GB of the device"),
        *("derivation", "memory", "device", ("predicted_gigabytes", "measured_gigabytes")),
    ),
    _hot_patch("1.1 ms at copy bandwidth; 1.5 to 3 ms", "commit_milliseconds"),
    _hot_patch("1.0 to 1.3 s on 16 threads", "prepare_seconds"),
    _hot_patch(
        *("a server pauses only for as long as the memory traffic takes", "commit_milliseconds"),
        "docs/explanation/design/hot-patch.md",
    ),
    _stream(BUILD, "3 to 5 s: 37 to 60 % of the bus"),
    _stream("build, chunks of 2^22 words", "2.2 to 2.8 s: 65 to 85 %"),
    _stream("apply, additive", "1.6 to 3 s: 25 to 45 %"),
    _stream(BUILD, "So the device gains little there, and loses for `apply`."),
    _stream(BUILD, "The files are the same, bit for bit.", "docs/how-to/use-a-gpu.md"),
    Claim(
        *("docs/how-to/use-a-gpu.md", "device memory, whatever the size of the model"),
        *("streaming", "device memory", "most", ("gigabytes", "gigabytes_allowed")),
    ),
)
