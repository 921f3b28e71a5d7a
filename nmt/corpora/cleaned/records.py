"""The records of a cleaned corpus: candidates and meetings, as bytes and as arrays, and the couples they belong to."""

import hashlib
import struct
from collections.abc import Iterable

import numpy as np

from nmt.languages import Direction

TextPair = tuple[str, str]
# Two languages in alphabetical order. The two directions between them share their candidates. Monolingual text has the
# couple of its language and itself; the second side of its candidates is empty.
Couple = tuple[str, str]

# A candidate: for either side (a, b) a hash of (language, text), and its length in bytes, characters and words.
CANDIDATE = np.dtype(
    [
        *((f"hash_{side}", "<u8") for side in "ab"),
        *((f"bytes_{side}", "<u4") for side in "ab"),
        *((f"characters_{side}", "<u2") for side in "ab"),
        *((f"words_{side}", "<u2") for side in "ab"),
    ]
)
CANDIDATE_STRUCT = struct.Struct("<QQIIHHHH")
# Records that decide between like texts, in the order of rows. Each row has one record of its text in the key language
# (couple: -1, index: its split), then one for each candidate (couple: its number, index: that of the candidate in it).
# `place` is a hash of the text's coarse form, equal for texts that are alike; `key` is a hash of the text itself.
MEETING = np.dtype([("place", "<u8"), ("key", "<u8"), ("index", "<i8"), ("couple", "<i4")])
MEETING_STRUCT = struct.Struct("<QQqi")


def list_couples(directions: Iterable[Direction]) -> list[Couple]:
    """Return the couples of some directions, in the order of their first directions."""
    return list(dict.fromkeys(sorted_couple(*direction) for direction in directions))


def sorted_couple(source: str, target: str) -> Couple:
    """Return two languages in alphabetical order."""
    return (source, target) if source < target else (target, source)


def text_hash(language: str, text: str) -> int:
    """Return a hash of 64 bits of a text and its language; among n texts, about n^2 / 2^65 pairs collide."""
    data = f"{language}\0{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
