"""Cleaned pairs in files for other tools."""

import contextlib
import gzip
import json
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from nmt.corpora.cleaned.corpus import Corpus
from nmt.corpora.declare.spec_split import Split
from nmt.files import atomic_write
from nmt.languages import Direction
from nmt.progress import SILENT, Reporter

_TOLD_EVERY = 1000  # pairs


def export_split(
    corpus: Corpus,
    direction: Direction,
    split: Split,
    folder: str,
    form: str,
    compress: bool = False,
    progress: Reporter = SILENT,
) -> list[epath.Path]:
    """Write a direction's split to files, and return their paths.

    Args:
      corpus: the corpus.
      direction: one of its directions.
      split: one of its splits.
      folder: folder of the files, created if need be.
      form: moses (SPLIT.de-en.de and SPLIT.de-en.en), tsv (source<TAB>target) or jsonl ({"source", "target"}).
        Monolingual text has one side: SPLIT.de-de.de, one column, or {"text"}.
      compress: whether to compress with gzip, as NAME.gz.
      progress: shows how many pairs are written.
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
        # Without name and time in the header the same pairs give the same bytes.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield packed


def _lines(sides: Sequence[str], form: str) -> Sequence[str]:
    if form == "jsonl":
        names = ("source", "target") if len(sides) > 1 else ("text",)
        return (json.dumps(dict(zip(names, sides, strict=True)), ensure_ascii=False),)
    # Cleaned text has neither tabs nor line breaks.
    return sides if form == "moses" else ("\t".join(sides),)
