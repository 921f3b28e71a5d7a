"""What a person judges a cleaned corpus by: tables of statistics, samples, and files for other tools."""

import contextlib
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from etils import epath
from pydantic import ValidationError

from nmt.config import CleanConfig
from nmt.config.arguments import read_arguments
from nmt.corpora import SPLITS, Corpus, Split
from nmt.corpora.clean import Reason
from nmt.corpora.clean.sieve import Pair
from nmt.corpora.cleaned.corpus import NOTHING, Size
from nmt.corpora.opening import counted, open_corpora
from nmt.errors import UserError
from nmt.files import atomic_write
from nmt.languages import Direction
from nmt.progress import SILENT, Progress

_TOLD_EVERY = 1000  # pairs
FORMATS = ("moses", "tsv", "jsonl")
STATISTICS_TITLES = ("direction", "read", *SPLITS, "words", "characters", "rejected")


def default_directions(name: str, progress: Progress = SILENT) -> tuple[Direction, ...]:
    """Return the directions from every language of a corpus or mixture into its key language.

    Of monolingual corpora, those of denoising.

    Raises:
      UserError: it cannot be had, or it has one language only.
    """
    with open_corpora([name], progress, warns=False) as corpora:
        found = {
            Direction(code, source.key_language)
            for source in corpora.sources
            for code in source.languages
            if code != source.key_language and source.has(code, source.key_language)
        } | {Direction(code, code) for source in corpora.sources for code in source.languages if source.has(code, code)}
    if not found:
        raise UserError(f"corpus {name} has no language but its key language; name directions with --directions")
    return tuple(sorted(found))


def statistics(corpus: Corpus) -> dict[str, Any]:
    """Return pairs, words, characters and rejections of every direction, their totals, and the sources, as JSON."""
    rejected = sum(corpus.rejections.values(), Counter())
    return {
        "directions": {
            str(direction): _entry(sizes, corpus.rejections[direction]) for direction, sizes in corpus.sizes.items()
        },
        "total": _entry(_total(corpus), rejected),
        "rows": corpus.rows,
        "sources": [vars(source) for source in corpus.provenance],
        "unreadable": list(corpus.unreadable),
        "skipped": corpus.skipped,
        "failures": corpus.failures,
        "unregistered": corpus.unregistered,
        "digest": corpus.digest,
    }


def statistics_rows(corpus: Corpus) -> tuple[list[list[str]], list[str]]:
    """Return the statistics as text: a row a direction under STATISTICS_TITLES, and the row of their totals.

    Words and characters are those of source / target.
    """
    rows = [
        list(_line(str(direction), sizes, corpus.rejections[direction])) for direction, sizes in corpus.sizes.items()
    ]
    rejected = sum(corpus.rejections.values(), Counter())
    return rows, list(_line(counted(len(corpus.sizes), "direction"), _total(corpus), rejected))


def largest(corpus: Corpus, rejected: str | None = None, most: int = 5) -> list[Direction]:
    """Return the directions with most pairs, or with most pairs that were rejected for a reason; none without any."""
    counts = {
        direction: sum(size.pairs for size in sizes.values()) if rejected is None else _of(corpus, direction, rejected)
        for direction, sizes in corpus.sizes.items()
    }
    return sorted((one for one in counts if counts[one]), key=lambda one: -counts[one])[:most]


def nothing_to_show(corpus: Corpus, what: str, rejected: str | None) -> str:
    """Return why there are no samples: which reasons occur, if pairs rejected for a reason were asked for."""
    reasons = sum(corpus.rejections.values(), Counter())
    if rejected is None:
        return f"no pair of {what} is kept: {_why_none(reasons)}"
    return f"no pair of {what} was rejected as {rejected!r}; reasons that occur: {_reasons(reasons)}"


def check_kept(corpus: Corpus, name: str) -> None:
    """Raise UserError, with the reason, where no pair of a corpus is kept."""
    if not largest(corpus):
        raise UserError(nothing_to_show(corpus, name, None))


def check_split(corpus: Corpus, direction: Direction, split: Split) -> None:
    """Raise UserError where a split of a direction is empty: which others are not, or why all are."""
    if corpus.pairs[direction][split]:
        return
    others = {other: len(pairs) for other, pairs in corpus.pairs[direction].items() if pairs}
    if not others:
        raise UserError(f"no pair of {direction} is kept: {_why_none(corpus.rejections[direction])}")
    have = ", ".join(f"{counted(count, 'pair')} (--split {other})" for other, count in others.items())
    raise UserError(f"no pair of {direction} is in the {split} split; there are {have}")


def _why_none(reasons: Counter[Reason]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common()) or "none could be read"


def _reasons(reasons: Iterable[Reason]) -> str:
    return ", ".join(reasons) or "no pair was rejected at all"


def _of(corpus: Corpus, direction: Direction, reason: str) -> int:
    return corpus.rejections[direction][Reason(reason)] if reason in set(Reason) else 0


def samples(corpus: Corpus, direction: Direction, count: int, rejected: str | None = None) -> list[Pair]:
    """Return some pairs of a direction: spread evenly over its training pairs, or rejected for a reason.

    Raises:
      UserError: there are none; the message says which reasons occur.
    """
    if rejected is None:
        if not (pairs := next(filter(None, corpus.pairs[direction].values()), None)):
            raise UserError(f"no pair of {direction} is kept: {_why_none(corpus.rejections[direction])}")
        step = max(1, len(pairs) // max(1, count))
        return list(islice(pairs, 0, step * count, step))
    found = corpus.samples[direction]
    if rejected not in found:
        raise UserError(f"no pair of {direction} was rejected as {rejected!r}; reasons that occur: {_reasons(found)}")
    return found[Reason(rejected)][:count]


def export(
    corpus: Corpus,
    direction: Direction,
    split: Split,
    folder: str,
    form: str,
    compress: bool = False,
    progress: Progress = SILENT,
) -> list[epath.Path]:
    """Write a direction's split for other tools, and return the files.

    Args:
      corpus: the corpus.
      direction: one of its directions.
      split: which pairs.
      folder: where the files go; made if it is not there.
      form: moses (SPLIT.de-en.de and SPLIT.de-en.en), tsv (source<TAB>target) or jsonl ({"source", "target"}). Of
        monolingual text there is one side: SPLIT.de-de.de, one column, or {"text"}.
      compress: with gzip, as NAME.gz.
      progress: who is told how many pairs are written.
    """
    root = epath.Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    stem, suffix = f"{split}.{direction}", ".gz" if compress else ""
    languages = dict.fromkeys(direction)  # monolingual text has one side
    names = [f"{stem}.{language}" for language in languages] if form == "moses" else [f"{stem}.{form}"]
    paths = [root / f"{name}{suffix}" for name in names]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_written(path, compress)) for path in paths]
        pairs = corpus.pairs[direction][split]
        task = stack.enter_context(progress.track(f"writing {direction}", len(pairs), "pairs"))
        for done, pair in enumerate(pairs, start=1):
            for file, line in zip(files, _lines(pair[: len(languages)], form), strict=True):
                file.write(f"{line}\n".encode())
            if done % _TOLD_EVERY == 0 or done == len(pairs):
                task.update(done)
    return paths


@contextlib.contextmanager
def _written(path: epath.Path, compress: bool) -> Iterator[Any]:
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        if not compress:
            yield file
            return
        # No name and no time in the header: the same pairs are the same bytes.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield packed


def _lines(sides: Sequence[str], form: str) -> Sequence[str]:
    if form == "jsonl":
        names = ("source", "target") if len(sides) > 1 else ("text",)
        return (json.dumps(dict(zip(names, sides, strict=True)), ensure_ascii=False),)
    # Cleaned text has neither tabs nor line breaks.
    return sides if form == "moses" else ("\t".join(sides),)


def _entry(sizes: dict[Split, Size], rejected: Counter[Reason]) -> dict[str, Any]:
    return {
        "read": sum(size.pairs for size in sizes.values()) + rejected.total(),
        "splits": {
            split: {
                "pairs": size.pairs,
                "source_words": size.words[0],
                "target_words": size.words[1],
                "source_characters": size.characters[0],
                "target_characters": size.characters[1],
            }
            for split, size in sizes.items()
        },
        "rejected": {str(reason): count for reason in Reason if (count := rejected[reason])},
    }


def _line(name: str, sizes: Mapping[Split, Size], rejected: Counter[Reason]) -> Iterator[str]:
    size = sum(sizes.values(), NOTHING)
    yield name
    yield f"{size.pairs + rejected.total():,}"
    yield from (f"{sizes[split].pairs:,}" for split in SPLITS)
    yield f"{size.words[0]:,} / {size.words[1]:,}"
    yield f"{size.characters[0]:,} / {size.characters[1]:,}"
    yield ", ".join(f"{reason} {count:,}" for reason, count in rejected.most_common())


def _total(corpus: Corpus) -> dict[Split, Size]:
    return {split: sum((sizes[split] for sizes in corpus.sizes.values()), NOTHING) for split in SPLITS}


def cleaning(changes: Sequence[str]) -> CleanConfig:
    """Return the default cleaning with keys changed, each written as KEY=VALUE (YAML), such as min_words=1.

    Raises:
      UserError: not of this form, an unknown key, a wrong value.
    """
    values = {path[-1]: given.value for path, given in read_arguments([f"data.clean.{one}" for one in changes]).items()}
    try:
        return CleanConfig(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(map(str, wrong["loc"]))
        raise UserError(f"--clean {key}={wrong['input']}: {wrong['msg']}") from None
