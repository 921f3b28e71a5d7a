"""What a corpus holds before cleaning, as it was counted when it was fetched."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.obtain.cache import corpus_folder
from nmt.corpora.obtain.fetch import find_fetched
from nmt.corpora.obtain.identity import CODE_VERSION, corpus_identity
from nmt.corpora.obtain.kinds import obtain_kind
from nmt.corpora.readers.read import Source
from nmt.errors import UserError
from nmt.languages import Direction


@dataclass(frozen=True)
class Counts:
    """What a corpus holds before cleaning."""

    rows: int  # texts of the key language
    pairs: dict[str, int]  # texts that have a translation (of monolingual corpora: all), by the language's code
    unregistered: list[str]  # codes that the registry does not know
    unreadable: list[str]  # files, with the reason
    skipped: dict[str, int] = field(default_factory=dict)  # by kind

    @property
    def total(self) -> int:
        """All pairs with the key language."""
        return sum(self.pairs.values())


def counted(spec: CorpusSpec) -> Counts | None:
    """Return what was counted when the corpus was fetched, or None."""
    # Whether anything was counted is known at once; of which text, once a person's own files are hashed.
    if not any(corpus_folder(spec).glob("counts-*.json")):
        return None
    try:
        return Counts(**json.loads(counts_file(spec).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, UserError):
        return None


def counts_file(spec: CorpusSpec) -> Path:
    """Return where the counts of a corpus are kept; other text, another file.

    Raises:
      UserError: a variable of the declaration is not set, or a fetched file is not the one that is pinned.
    """
    inputs = {"code": CODE_VERSION, "corpus": corpus_identity(spec)}
    if not obtain_kind(spec).has_versions:
        inputs["files"] = [one.sha256 for one in find_fetched(spec) or ()]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
    return corpus_folder(spec) / f"counts-{digest}.json"


def expected_pairs(sources: Iterable[Source], directions: Sequence[Direction]) -> int | None:
    """Return about how many pairs of some directions corpora have; None where one of them was not counted."""
    total = 0
    for source in sources:
        if (counts := counted(source.spec)) is None:
            return None
        for direction in directions:
            if source.has(*direction):
                # Counts are of pairs with the key language: between two others there are no more than of either.
                total += min((counts.pairs[code] for code in set(direction) if code in counts.pairs), default=0)
    return total
