"""Opening corpora by name: declared, fetched, and ready to be read."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from nmt.data.corpora.fetch import fetch
from nmt.data.corpora.read import Archive, Source
from nmt.data.corpora.spec import load_specs


@dataclass(frozen=True)
class Corpora:
    """Open corpora, and those of mixtures that could not be had."""

    sources: tuple[Source, ...]
    failures: dict[str, str] = field(default_factory=dict)  # why, by the name of the corpus


@contextlib.contextmanager
def open_corpora(names: Sequence[str], console: Console | None = None) -> Iterator[Corpora]:
    """Open corpora, fetched if they must be, and close them at the end.

    Raises:
      UserError: a declaration is wrong, or a corpus cannot be fetched or opened.
    """
    with contextlib.ExitStack() as stack:
        paths = [(spec, fetch(spec, console)) for spec in load_specs(names)]
        yield Corpora(tuple(stack.enter_context(Archive(spec, path)) for spec, path in paths))
