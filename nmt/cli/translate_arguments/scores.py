"""Options of nmt-translate that say what is written besides translations."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

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

    token_scores: Annotated[
        bool,
        typer.Option(
            "--token-scores", help="The log probability of every token: a field of JSON lines, or lines become JSON."
        ),
    ] = False
    align: Annotated[
        bool,
        typer.Option("--align", help="Before each line (after its score) its alignment of words, 0-0 1-2, and a tab."),
    ] = False
    alignment_layer: Annotated[
        int | None, typer.Option(metavar="N", help="Decoder layer, from 0, whose attention aligns. Default: the last.")
    ] = None

    @property
    def wanted(self) -> bool:
        """Whether anything is written beside translations."""
        return self.scores or self.token_scores or self.align

    def details(self) -> dict[str, Any]:
        """Return the arguments of `Translator.translate_scored` that ask for what is written."""
        return {"token_scores": self.token_scores, "align": self.align, "alignment_layer": self.alignment_layer}

    def render(self, translation: "Translation") -> str:
        """Return the line of output for a translation; several hypotheses have a line each, with rank and score."""
        if translation.hypotheses and not self.token_scores:
            ranked = enumerate(translation.hypotheses, start=1)
            return "\n".join(f"{rank}\t{one.score:.4f}\t{one.text}" for rank, one in ranked)
        if self.token_scores:
            return json.dumps({"translation": translation.text, **self.json_fields(translation)}, ensure_ascii=False)
        columns = [f"{translation.score:.4f}"] * self.scores
        if self.align:
            columns.append(translation.alignment.pharaoh() if translation.alignment else "")
        return "\t".join([*columns, translation.text])

    def json_fields(self, translation: "Translation") -> dict[str, object]:
        """Return the fields that a translation has beside its text in JSON lines."""
        fields: dict[str, object] = {"score": round(translation.score, 4)} if self.scores else {}
        if self.token_scores:
            fields["tokens"] = [token._asdict() for token in translation.tokens]
        if self.align:
            fields["alignment"] = translation.alignment.links if translation.alignment else []
        if translation.hypotheses:
            fields["hypotheses"] = [{"text": one.text, "score": round(one.score, 4)} for one in translation.hypotheses]
        return fields
