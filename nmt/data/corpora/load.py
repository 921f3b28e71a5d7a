"""From declarations to pairs: fetch, read, clean, deduplicate, split."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console

from nmt.config import CleanConfig
from nmt.data.clean import Reason
from nmt.data.corpora.opening import identity, open_corpora
from nmt.data.corpora.read import Provenance, Source
from nmt.data.corpora.sieve import Pair, Sieve
from nmt.data.corpora.spec import CorpusSpec, Split, load_specs
from nmt.errors import UserError
from nmt.languages import Direction

# Part of the digest: to be raised whenever the same declarations and files give other pairs than before.
CODE_VERSION = 1


@dataclass(frozen=True)
class Corpus:
    """Clean pairs of every direction and split, and what became of all others."""

    pairs: dict[Direction, dict[Split, list[Pair]]]  # (source, target), in the order of (corpus, component, key path)
    rejections: dict[Direction, Counter[Reason]]  # pairs read = pairs kept + pairs rejected
    rows: dict[Split, int]  # distinct texts of the key language among the pairs
    provenance: tuple[Provenance, ...]
    unreadable: tuple[str, ...]  # tables that could not be read, as `corpus: path in the archive`
    digest: str  # see `inputs_digest`


def load_pairs(
    names: Sequence[str], directions: Sequence[Direction], clean: CleanConfig, console: Console | None = None
) -> Corpus:
    """Return the pairs of some directions from some corpora.

    See `Sieve` for which of several like texts is kept, and where. At last, pairs of which either side also stands in
    a split that is held out (test from dev, both from train) are removed.

    Args:
      names: corpora, by name or path; where they share texts, the first one has them.
      directions: canonical.
      clean: what is kept.
      console: where the progress of downloads and warnings are shown; None: nowhere.

    Raises:
      UserError: a declaration is wrong, a corpus cannot be fetched or read, or a direction has no pairs.
    """
    sieve = Sieve(directions, clean)
    with open_corpora(names, console) as corpora:
        _check_covered(directions, corpora.sources)
        wanted = {code for direction in directions for code in direction}
        for source in corpora.sources:
            for row in source.rows(wanted):
                sieve.add(row, source.spec.split)
        provenance = tuple(one for source in corpora.sources for one in source.provenance)
        unreadable = tuple(f"{source.spec.name}: {path}" for source in corpora.sources for path in source.unreadable)
    if unreadable and console:
        shown = ", ".join(unreadable[:3]) + (", ..." if len(unreadable) > 3 else "")
        warning = f"warning: {len(unreadable)} unreadable tables left out: {shown}"
        console.print(warning, highlight=False, markup=False, soft_wrap=True)
    sieve.hold_out()
    _check_left(sieve)
    return Corpus(
        pairs=sieve.pairs(),
        rejections=sieve.rejections,
        rows=sieve.rows(),
        provenance=provenance,
        unreadable=unreadable,
        digest=inputs_digest(load_specs(names), directions, clean),
    )


def inputs_digest(specs: Sequence[CorpusSpec], directions: Sequence[Direction], clean: CleanConfig) -> str:
    """Return a hash of all that determines the pairs; needs no network. Other pairs, another digest."""
    inputs = {
        "code": CODE_VERSION,
        "corpora": [identity(spec) for spec in specs],
        "directions": [str(direction) for direction in directions],
        "clean": clean.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _check_covered(directions: Iterable[Direction], sources: Sequence[Source]) -> None:
    if missing := [str(one) for one in directions if not any(source.has(*one) for source in sources)]:
        have = "; ".join(_what_it_has(source) for source in sources)
        raise UserError(f"no text for the direction {', '.join(missing)}: {have}")


def _what_it_has(source: Source) -> str:
    place = f" at {source.place}" if source.place else ""
    return f"corpus {source.spec.name}{place} has {', '.join(source.languages)}"


def _check_left(sieve: Sieve) -> None:
    pairs = sieve.pairs()
    gone = [
        f"{direction} ({', '.join(f'{count} {reason}' for reason, count in reasons.most_common()) or 'none read'})"
        for direction, reasons in sieve.rejections.items()
        if not any(pairs[direction].values())
    ]
    if gone:
        raise UserError(f"cleaning leaves no pair of the direction {', '.join(gone)}")
