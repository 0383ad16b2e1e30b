"""A decoder of codec 3 written from formats/SPEC.md, section 6.4, alone; nothing imports patchc."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

EXPONENTS = {
    "F64": (52, 11),
    "F32": (23, 8),
    "F16": (10, 5),
    "BF16": (7, 8),
    "F8_E4M3": (3, 4),
    "F8_E5M2": (2, 5),
}
ORDERED = set(EXPONENTS)
SURE = 145


class CorruptError(Exception):
    """The body breaks a rule of the page."""


def need(condition: bool) -> None:
    if not condition:
        raise CorruptError


class Coder:
    """6.4.1."""

    def __init__(self, body: bytes) -> None:
        need(len(body) > 0)
        size = len(body) if len(body) <= 8 else 5 + (len(body) - 5) % 4
        need(body[size - 1] != 0)
        self.x = int.from_bytes(body[:size], "little")
        rest = body[size:]
        self.words = [int.from_bytes(rest[i : i + 4], "little") for i in range(0, len(rest), 4)]

    def refill(self) -> None:
        if self.x < 2**32 and self.words:
            self.x = self.x * 2**32 + self.words.pop(0)

    def raw(self, k: int) -> int:
        if k > 32:
            low = self.raw(32)
            return low + (self.raw(k - 32) << 32)
        value = self.x % 2**k
        self.x //= 2**k
        self.refill()
        return value

    def symbol(self, table: list[tuple[int, int]]) -> int:
        slot = self.x % 4096
        for symbol, (first, count) in enumerate(table):
            if first <= slot < first + count:
                self.x = count * (self.x // 4096) + slot - first
                self.refill()
                return symbol
        raise AssertionError("the slots have a hole")

    def number(self, k: int) -> int:
        n = 0
        for _ in range(22):
            if not self.raw(1):
                break
            n += 2**k
            k += 1
        return n + self.raw(k)

    def signed(self, k: int) -> int:
        n = self.number(k)
        return (n + 1) // 2 if n % 2 else -(n // 2)


@cache
def level_table(level: int) -> tuple[int, list[tuple[int, int]]]:
    """6.4.2: k, and first slot and slots of each symbol."""
    k = max(0, -((level - 88) // 4))
    m = level + 4 * k - 96
    one = 2**32
    quarter = (4294967296, 5107605667, 6074000999, 7223345211)[m % 4]
    shift = m // 4
    odds = quarter * 2**shift if shift >= 0 else quarter // 2**-shift
    stay = one * one // (one + odds)
    e, cuts = one, [0]
    while True:
        e = e * stay // one
        cuts.append((one - e) // 2**20)
        if e * (one - stay) // one < 2**22:
            break
    cuts.append(4096)
    return k, [(low, high - low) for low, high in pairwise(cuts)]


def geometric(coder: Coder, level: int, limit: int) -> int:
    if level == SURE:
        return 0
    k, table = level_table(level)
    last = len(table) - 1
    n = 0
    symbol = coder.symbol(table)
    while symbol == last and n <= limit:
        n += last << k
        symbol = coder.symbol(table)
    return n + (symbol << k) + coder.raw(k)


@dataclass
class Table:
    kind: int
    level: int = 0
    slots: list[tuple[int, int]] = field(default_factory=list)

    def flips(self, coder: Coder, width: int) -> int:
        if not self.slots:
            return coder.raw(width)
        top = coder.symbol(self.slots)
        return coder.raw(width - 8) + (top << (width - 8))

    def step(self, coder: Coder, width: int) -> int:
        if self.kind == 0:
            size = geometric(coder, self.level, 2 ** min(width - 1, 40) - 1) + 1
            step = -size if coder.raw(1) else size
        elif self.kind == 1:
            token = coder.symbol(self.slots)
            start, bits = token_range(token)
            sign = -1 if coder.raw(1) else 1
            step = (start + coder.raw(bits)) * sign
        else:
            symbol = coder.symbol(self.slots)
            start, bits = token_range(symbol // 2)
            step = (start + coder.raw(bits)) * (-1 if symbol % 2 else 1)
        need(step != 0 and -(2 ** (width - 1)) <= step < 2 ** (width - 1))
        return step


def token_range(token: int) -> tuple[int, int]:
    if token < 7:
        return token + 1, 0
    j, h = divmod(token - 7, 2)
    return (2 + h) * 2 ** (j + 2), j + 2


def read_table(coder: Coder) -> Table:
    kind = coder.raw(2)
    if kind == 0:
        level = coder.raw(8)
        need(level <= SURE)
        return Table(0, level)
    count = coder.number(2) + (kind != 3)
    if count == 0:
        return Table(3)
    need(count <= (128 if kind == 1 else 256))
    weights, before = [], 31
    for _ in range(count):
        before -= coder.signed(1)
        need(0 <= before <= 31)
        weights.append(before)
    need(any(weights))
    shares = [0 if a == 0 else (181 if a % 2 else 128) << (a // 2) for a in weights]
    present = sum(a > 0 for a in weights)
    counts = [1 + u * (4096 - present) // sum(shares) if u else 0 for u in shares]
    counts[weights.index(max(weights))] += 4096 - sum(counts)
    slots, first = [], 0
    for given in counts:
        slots.append((first, given))
        first += given
    return Table(kind, 0, slots)


@dataclass
class Group:
    tops: list[int] = field(default_factory=list)
    lows: int = 0
    classes: int = 0


Key = tuple[str, int, int]


class Chunk:
    """6.4.4 and 6.4.5."""

    def __init__(
        self, body: bytes, dtype: str, width: int, words: int, groups: int, entries: int
    ) -> None:
        self.coder = Coder(body)
        self.mantissa, self.exponent_bits = EXPONENTS.get(dtype, (0, 0))
        self.ordered, self.width, self.size = dtype in ORDERED, width, words
        self.groups: list[Group] = []
        self.levels: dict[Key, int] = {}
        self.tables: dict[Key, Table] = {}
        for g in range(groups):
            self.groups.append(self._group(g))
        if self.coder.raw(1):
            self.levels["all", 0, 0] = self._level(self.coder.raw(8))
            self.tables["all", 0, 0] = read_table(self.coder)
        rank = {"class": 0, "low": 1, "all": 2, "edge": 3}
        order = sorted(self.levels, key=lambda key: (rank[key[0]], key[1], key[2]))
        need(len(order) > 0)
        others = [self.coder.number(4) for _ in order[1:]]
        need(sum(others) <= entries)
        counts = [entries - sum(others), *others]
        self.coded = {
            key: [self._change(key) for _ in range(count)]
            for key, count in zip(order, counts, strict=True)
        }
        need(self.coder.x == 1 and not self.coder.words)

    def _level(self, level: int) -> int:
        need(0 <= level <= SURE)
        return level

    def _change(self, key: Key) -> tuple[int, int]:
        """The gap, and the step or the bits that flip; neither of them at an edge."""
        gap = geometric(self.coder, self.levels[key], self.size)
        if key[0] == "edge":
            return gap, 0
        table = self.tables[key]
        if table.kind == 3:
            return gap, table.flips(self.coder, self.width)
        return gap, table.step(self.coder, self.width)

    def _group(self, g: int) -> Group:
        coder = self.coder
        count = coder.number(2)
        need(count <= (60 if self.exponent_bits else 1))
        group = Group(classes=count)
        if count == 0:
            return group
        if self.exponent_bits:
            group.tops = [coder.raw(self.exponent_bits)]
            for _ in range(count - 1):
                group.tops.append(group.tops[-1] + 1 + coder.number(0))
            need(group.tops[-1] < 2**self.exponent_bits)
        for i in range(count):
            if i == 0:
                level, same = coder.raw(8), 0
            else:
                level = self.levels["class", g, i - 1] - coder.signed(2)
                same = coder.raw(1)
            self.levels["class", g, i] = self._level(level)
            table = self.tables["class", g, i - 1] if same else read_table(coder)
            self.tables["class", g, i] = table
        if not self.exponent_bits:
            return group
        group.lows = coder.number(1)
        need(group.lows <= count)
        if group.lows:
            self.levels["low", g, 0] = self._level(coder.raw(8))
            self.tables["low", g, 0] = read_table(coder)
        for i in range(max(0, group.lows - 1), count):
            if coder.raw(1):
                near = max(self.levels["class", g, i], self.levels.get(("class", g, i + 1), -1))
                level = max(0, min(near, 96) - 8) - coder.signed(2)
                self.levels["edge", g, i] = self._level(level)
        return group

    def class_of(self, word: int, g: int) -> int:
        group = self.groups[g]
        if not self.exponent_bits:
            return 0
        exponent = (word >> self.mantissa) % 2**self.exponent_bits
        return sum(top < exponent for top in group.tops)

    def neighbour(self, word: int) -> int | None:
        if not self.exponent_bits:
            return None
        low = word % 2**self.mantissa
        exponent = (word >> self.mantissa) % 2**self.exponent_bits
        if low == 0 and exponent > 0:
            return word - 1
        if low == 2**self.mantissa - 1 and exponent < 2**self.exponent_bits - 1:
            return word + 1
        return None

    def population(self, stage: int, word: int, g: int) -> Key | None:
        if stage == 0:
            return "all", 0, 0
        if stage == 1:
            return ("low", g, 0) if self.class_of(word, g) < self.groups[g].lows else None
        if stage == 3:
            return "class", g, self.class_of(word, g)
        other = self.neighbour(word)
        if other is None:
            return None
        one, two = self.class_of(word, g), self.class_of(other, g)
        return ("edge", g, min(one, two)) if one != two else None

    def order(self, word: int) -> int:
        top = 2 ** (self.width - 1)
        return word ^ (top - 1) if self.ordered and word & top else word

    def moved(self, word: int, step: int) -> int:
        return self.order((self.order(word) + step) % 2**self.width)

    def signed(self, step: int) -> int:
        half = 2 ** (self.width - 1)
        return (step + half) % (2 * half) - half

    def changes(self, words: list[int], members: list[int], revert: bool) -> list[tuple[int, int]]:
        found: dict[int, int] = {}
        for stage in (3, 2, 1, 0) if revert else (0, 1, 2, 3):
            held: dict[Key, list[int]] = {}
            for position, (word, g) in enumerate(zip(words, members, strict=True)):
                key = self.population(stage, word, g)
                if key in self.coded and key is not None:
                    held.setdefault(key, []).append(position)
            for key, coded in self.coded.items():
                if key[0] != ("all", "low", "edge", "class")[stage]:
                    continue
                rank = -1
                for gap, value in coded:
                    rank += gap + 1
                    need(rank < len(held.get(key, [])))
                    position = held[key][rank]
                    need(position not in found)
                    other, step = self._moved_by(key, words[position], value, revert)
                    need(self.population(stage, other, members[position]) == key)
                    words[position], found[position] = other, step
        return sorted(found.items())

    def _moved_by(self, key: Key, word: int, value: int, revert: bool) -> tuple[int, int]:
        """The word on the other side, and the step from base to result."""
        if key[0] != "edge" and self.tables[key].kind != 3:
            return self.moved(word, -value if revert else value), value
        other = self.neighbour(word) if key[0] == "edge" else word ^ value
        assert other is not None
        need(other != word)
        step = self.signed(self.order(other) - self.order(word))
        return other, self.signed(-step) if revert else step


def conditional(
    body: bytes,
    words: list[int],
    entries: int,
    dtype: str,
    width: int,
    revert: bool = False,
    members: list[int] | None = None,
) -> list[tuple[int, int]]:
    """Positions and steps of a body, from the words of the base or, reverting, of the result."""
    chunk = Chunk(body, dtype, width, len(words), 4 if members else 1, entries)
    return chunk.changes(list(words), members or [0] * len(words), revert)
