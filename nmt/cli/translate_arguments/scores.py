"""Options of nmt-translate that say what is written besides translations."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

if TYPE_CHECKING:
    from nmt.decode.translator import Translation


@dataclass(frozen=True, kw_only=True)
class ScoreArguments:
    """Scores and alignments beside translations."""

    title: ClassVar[str] = "Scores"

    scores: Annotated[
        bool, typer.Option("--scores", help="Before each line its score (normalised log probability) and a tab.")
    ] = False

    def render(self, translation: "Translation") -> str:
        """Return the line of output for a translation."""
        return f"{translation.score:.4f}\t{translation.text}" if self.scores else translation.text

    def json_fields(self, translation: "Translation") -> dict[str, object]:
        """Return the fields that a translation has beside its text in JSON lines."""
        return {"score": round(translation.score, 4)} if self.scores else {}
