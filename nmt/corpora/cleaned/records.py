"""The records of a cleaned corpus: candidates and meetings, as bytes and as arrays, and the couples they belong to."""

import hashlib
import struct
from collections.abc import Iterable

import numpy as np

from nmt.languages import Direction

TextPair = tuple[str, str]
# Two languages, in alphabetical order: the two directions between them share their candidates. Monolingual text is of a
# language and itself; its candidates have an empty second side.
Couple = tuple[str, str]

# What is remembered of a candidate: hashes of (language, text), bytes, characters and words of either side.
CANDIDATE = np.dtype(
    [
        *((f"hash_{side}", "<u8") for side in "ab"),
        *((f"bytes_{side}", "<u4") for side in "ab"),
        *((f"characters_{side}", "<u2") for side in "ab"),
        *((f"words_{side}", "<u2") for side in "ab"),
    ]
)
CANDIDATE_STRUCT = struct.Struct("<QQIIHHHH")
# What decides between like texts, in the order of rows: that an acceptable text of the key language was met (couple
# -1, index: its split), then the row's candidates (index: among those of the couple). `place` is a hash of what makes
# texts alike, `key` one of the text itself.
MEETING = np.dtype([("place", "<u8"), ("key", "<u8"), ("index", "<i8"), ("couple", "<i4")])
MEETING_STRUCT = struct.Struct("<QQqi")


def list_couples(directions: Iterable[Direction]) -> list[Couple]:
    """Return the couples of languages of some directions, in the order of the first direction of each."""
    return list(dict.fromkeys(sorted_couple(*direction) for direction in directions))


def sorted_couple(source: str, target: str) -> Couple:
    """Return two languages in alphabetical order."""
    return (source, target) if source < target else (target, source)


def text_hash(language: str, text: str) -> int:
    """Return 64 bits that stand for a text of a language; of n texts about n^2 / 2^65 pairs share theirs."""
    data = f"{language}\0{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
