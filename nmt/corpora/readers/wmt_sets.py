"""Test sets of WMT, gathered from the documents of one or more files: sources and references by language."""

from collections import defaultdict
from dataclasses import dataclass, field

from nmt.corpora.readers.wmt_text import WmtSide

SegmentName = tuple[str, str]  # of the document, and its number there
SegmentTexts = dict[SegmentName, str]


@dataclass
class WmtSet:
    """The text of a test set.

    Attributes:
      sources: by language.
      references: by language, then by author (in the order of the files).
    """

    sources: dict[str, SegmentTexts] = field(default_factory=lambda: defaultdict(dict))
    references: dict[str, dict[str, SegmentTexts]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )

    def add(self, side: WmtSide, language: str, place: str) -> None:
        """Add a document of a file.

        Args:
          side: the document in one language; a translation by a system is left out.
          language: its canonical code.
          place: name of the file, which tells references without an author apart.

        Raises:
          ValueError: the set has a segment of it already.
        """
        if side.kind == "translation":
            return
        texts = self.sources[language] if side.kind == "source" else self.references[language][f"{place} {side.author}"]
        for number, text in side.segments.items():
            if (side.document, number) in texts:
                raise ValueError(f"the {side.kind} of segment {number} of document {side.document!r} is there twice")
            texts[side.document, number] = text

    def texts(self, language: str) -> SegmentTexts:
        """Return the text in one language: the source, or else the first reference; empty where there is none."""
        if language in self.sources:
            return self.sources[language]
        return next(iter(self.references.get(language, {}).values()), {})
