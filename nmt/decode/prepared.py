"""A line as the model reads it: paragraphs without white space and entities, in parts that are short enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nmt.corpora.clean.text import normalise, without_invisible
from nmt.data.vocab import Vocabulary
from nmt.decode.lines import LineForm, has_words, paragraphs
from nmt.decode.long_text import TextPart, join_translations, split_text
from nmt.languages import Language


class PreparedParagraph(NamedTuple):
    """A paragraph of a line: parts that are translated, or a text that is copied."""

    text: str  # in the form of the training text
    space: str  # white space that follows
    parts: list[TextPart]  # none where the text is copied: it is blank, or has no letter


class PreparedLine(NamedTuple):
    """A line, ready to be translated."""

    line: str
    form: LineForm
    paragraphs: list[PreparedParagraph]
    normalised: bool  # whether more than white space was changed
    split: bool  # whether a paragraph is longer than the sources of training
    unknown: float  # share of the letters that are not in the vocabulary, which spells them in bytes

    @property
    def parts(self) -> list[TextPart]:
        """The parts that are translated, of all paragraphs; none if the line is copied as it is."""
        return [part for paragraph in self.paragraphs for part in paragraph.parts]

    def assemble(self, translations: Sequence[str], source: Language, target: Language) -> str:
        """Return the line's translation from those of its parts, with all that is not the model's put back."""
        if not (parts := self.parts):
            return self.line
        assert len(parts) == len(translations)
        left = iter(translations)
        texts = []
        for paragraph in self.paragraphs:
            done = [next(left) for _ in paragraph.parts]
            joined = join_translations(done, paragraph.parts, source, target)
            texts.append((joined or paragraph.text) + paragraph.space)  # no output is empty unless its source is
        return self.form.apply("".join(texts))


@dataclass(frozen=True)
class LinePreparation:
    """Prepares lines in one language for one model.

    Attributes:
      vocabulary: the vocabulary of sources.
      longest: most pieces of a part.
      unicode: the normal form of Unicode of the training text.
      language: the language of the lines (canonical code).
    """

    vocabulary: Vocabulary
    longest: int
    unicode: str
    language: str

    def prepare(self, line: str) -> PreparedLine:
        """Return a line as the model reads it."""
        form = LineForm.read(line)
        visible = without_invisible(line).strip()
        read = [self._paragraph(text, space, form) for text, space in paragraphs(visible)]
        pieces = [piece for paragraph in read for part in paragraph.parts for piece in part.pieces]
        plain = " ".join(normalise(text, self.unicode) for text, _ in paragraphs(visible))
        return PreparedLine(
            line,
            form,
            read,
            normalised=plain.split() != line.split(),
            split=any(len(paragraph.parts) > 1 for paragraph in read),
            unknown=_unknown_share(visible, self.vocabulary.spelt_characters(pieces)),
        )

    def _paragraph(self, given: str, space: str, form: LineForm) -> PreparedParagraph:
        text = normalise(given, self.unicode)
        if not has_words(text):
            return PreparedParagraph(text if form.escaped else given, space, [])
        return PreparedParagraph(text, space, split_text(text, self.longest, self.vocabulary.encode, self.language))


def _unknown_share(text: str, spelt: str) -> float:
    letters = sum(map(str.isalpha, text))
    return min(1.0, sum(map(str.isalpha, spelt)) / letters) if letters else 0.0
