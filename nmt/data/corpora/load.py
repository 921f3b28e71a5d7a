"""From declarations to pairs: fetch, read, clean, deduplicate, split."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console

from nmt.config import CleanConfig
from nmt.data.clean import Reason
from nmt.data.corpora.fetch import fetch
from nmt.data.corpora.read import Archive
from nmt.data.corpora.sieve import Pair, Sieve
from nmt.data.corpora.spec import CorpusSpec, Split, load_spec
from nmt.errors import UserError
from nmt.languages import Direction

# Part of the digest: to be raised whenever the same declarations and files give other pairs than before.
CODE_VERSION = 1


@dataclass(frozen=True)
class Provenance:
    """Which text was used."""

    name: str
    version: str
    licence: str
    sha256: str


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
    specs = [load_spec(name) for name in names]
    paths = [fetch(spec, console) for spec in specs]
    sieve = Sieve(directions, clean)
    with contextlib.ExitStack() as stack:
        archives = [stack.enter_context(Archive(spec, path)) for spec, path in zip(specs, paths, strict=True)]
        _check_covered(directions, archives)
        wanted = {code for direction in directions for code in direction}
        for archive in archives:
            for row in archive.rows(wanted):
                sieve.add(row, archive.spec.split)
        unreadable = tuple(f"{archive.spec.name}: {path}" for archive in archives for path in archive.unreadable)
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
        provenance=tuple(
            Provenance(spec.name, spec.obtain.version, spec.licence, spec.obtain.sha256) for spec in specs
        ),
        unreadable=unreadable,
        digest=inputs_digest(specs, directions, clean),
    )


def inputs_digest(specs: Sequence[CorpusSpec], directions: Sequence[Direction], clean: CleanConfig) -> str:
    """Return a hash of all that determines the pairs; needs no network. Other pairs, another digest."""
    inputs = {
        "code": CODE_VERSION,
        "corpora": [spec.identity() for spec in specs],
        "directions": [str(direction) for direction in directions],
        "clean": clean.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _check_covered(directions: Iterable[Direction], archives: Sequence[Archive]) -> None:
    covered = [set(archive.languages) for archive in archives]
    if missing := [str(direction) for direction in directions if not any(set(direction) <= have for have in covered)]:
        have = "; ".join(f"corpus {archive.spec.name} has {', '.join(archive.languages)}" for archive in archives)
        raise UserError(f"no text for the direction {', '.join(missing)}: {have}")


def _check_left(sieve: Sieve) -> None:
    pairs = sieve.pairs()
    gone = [
        f"{direction} ({', '.join(f'{count} {reason}' for reason, count in reasons.most_common()) or 'none read'})"
        for direction, reasons in sieve.rejections.items()
        if not any(pairs[direction].values())
    ]
    if gone:
        raise UserError(f"cleaning leaves no pair of the direction {', '.join(gone)}")
