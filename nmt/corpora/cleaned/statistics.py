"""Statistics of a cleaned corpus: pairs, words, characters and rejections of every direction."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from nmt.corpora.clean import Reason
from nmt.corpora.cleaned.corpus import EMPTY_SIZE, Corpus, SplitSize
from nmt.corpora.declare.spec_split import SPLITS, Split
from nmt.corpora.wording import count_phrase

STATISTICS_TITLES = ("direction", "read", *SPLITS, "words", "characters", "rejected")


def corpus_statistics(corpus: Corpus) -> dict[str, Any]:
    """Return pairs, words, characters and rejections of every direction, their totals, and the origins, as JSON."""
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
        "test_sets": [one._asdict() for one in corpus.test_sets],
        "signs": [one._asdict() for one in corpus.signs],
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
    return rows, list(_line(count_phrase(len(corpus.sizes), "direction"), _total(corpus), rejected))


def _entry(sizes: dict[Split, SplitSize], rejected: Counter[Reason]) -> dict[str, Any]:
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


def _line(name: str, sizes: Mapping[Split, SplitSize], rejected: Counter[Reason]) -> Iterator[str]:
    size = sum(sizes.values(), EMPTY_SIZE)
    yield name
    yield f"{size.pairs + rejected.total():,}"
    yield from (f"{sizes[split].pairs:,}" for split in SPLITS)
    yield f"{size.words[0]:,} / {size.words[1]:,}"
    yield f"{size.characters[0]:,} / {size.characters[1]:,}"
    yield ", ".join(f"{reason} {count:,}" for reason, count in rejected.most_common())


def _total(corpus: Corpus) -> dict[Split, SplitSize]:
    return {split: sum((sizes[split] for sizes in corpus.sizes.values()), EMPTY_SIZE) for split in SPLITS}
