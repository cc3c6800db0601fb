"""MinHash: near-duplicates found by short signatures instead of by comparing all texts with all.

A text is the set of its shingles, the runs of `WORDS` words in it. Two texts are as alike as their sets:
the Jaccard index, shared shingles over all shingles. For a random order of all shingles, the chance that two
sets have the same least element is exactly that index; so the fraction of `HASHES` orders in which the least
elements agree estimates it, with a standard error of at most 0.5 / sqrt(HASHES), here 0.044.

Candidates are pairs whose signatures agree in all `ROWS` numbers of one of the bands: with 16 bands of 8, a
pair with an index of 0.9 is found with a chance of 99.99 %, one of 0.5 with 6 %.

Source: A. Broder, "On the resemblance and containment of documents", 1997 (shingles, least elements); the
bands as in Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import combinations
from typing import TypeAlias

WORDS = 4
HASHES = 128
ROWS = 8

Signature: TypeAlias = list[int]

_PRIME = (1 << 61) - 1
_RANDOM = random.Random(1997)
_ORDERS = [(_RANDOM.randrange(1, _PRIME), _RANDOM.randrange(_PRIME)) for _ in range(HASHES)]
"""Each (a, b) orders the shingles by (a * shingle + b) mod _PRIME: a universal family, close enough to random."""


def shingles(text: str) -> set[int]:
    """The hashes of all runs of `WORDS` words; of the whole text, when it has fewer words."""
    words = re.findall(r"\w+", text.lower())
    starts = range(max(1, len(words) - WORDS + 1))
    return {_hash(" ".join(words[start : start + WORDS])) for start in starts}


def signature(text: str) -> Signature:
    """The least shingle of the text in each order, as its rank: `HASHES` numbers."""
    hashes = list(shingles(text))
    return [min([(a * shingle + b) % _PRIME for shingle in hashes]) for a, b in _ORDERS]


def estimate(one: Signature, other: Signature) -> float:
    """The Jaccard index of two texts as their signatures tell it."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / HASHES


def jaccard(one: str, other: str) -> float:
    """The Jaccard index of two texts as it is."""
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def candidates(signatures: Sequence[Signature]) -> set[tuple[int, int]]:
    """The positions of all pairs that agree in one band, the smaller position first."""
    buckets: defaultdict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    for position, numbers in enumerate(signatures):
        for band in _bands(numbers):
            buckets[band].append(position)
    return {pair for bucket in buckets.values() for pair in combinations(bucket, 2)}


def _bands(numbers: Signature) -> Iterator[tuple[int, tuple[int, ...]]]:
    for start in range(0, HASHES, ROWS):
        yield start, tuple(numbers[start : start + ROWS])


def _hash(shingle: str) -> int:
    return int.from_bytes(blake2b(shingle.encode(), digest_size=8).digest()) % _PRIME
