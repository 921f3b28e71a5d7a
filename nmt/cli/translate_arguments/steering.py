"""Options of nmt-translate that say what translations begin with, have, not have, and keep."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from nmt.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmt.data.vocab import Vocabulary
    from nmt.decode.steering.request import Steering


@dataclass(frozen=True, kw_only=True)
class SteeringArguments:
    """Prefixes, glossaries, phrases, and text that is kept."""

    title: ClassVar[str] = "Steering"

    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Beginning of every translation; its last word may go on, unless a space ends it."
        ),
    ] = None
    prefix_bias_beta: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="X", help="Draw translations to the prefix: 0 forces it, close to 1 nearly does."
        ),
    ] = None
    glossary: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Terms that translations have: source term, tab, target term (a|b: either; a*: any ending).",
        ),
    ] = None
    glossary_mode: Annotated[
        str | None,
        typer.Option(
            metavar="MODE", help="force: terms must be there; prefer: they are made more likely. Default: force."
        ),
    ] = None
    force: Annotated[
        list[str] | None,
        typer.Option(metavar="PHRASE", help="Phrase that every translation has (a|b, a*); may be repeated."),
    ] = None
    forbid: Annotated[
        list[str] | None, typer.Option(metavar="PHRASE", help="Phrase that no translation has; may be repeated.")
    ] = None
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="TERM", help="Term of the text that is copied, not translated; may be repeated."),
    ] = None
    keep_pattern: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Regular expression of text that is copied, such as '[A-Z]{2}-\\d+'."),
    ] = None
    protect: Annotated[
        bool | None,
        typer.Option(
            "--protect/--no-protect",
            help="Keep addresses, placeholders ({name}, %s, ...) and tags as they are. Default: yes.",
        ),
    ] = None
    phrase_bonus: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="X", help="Logarithm of the factor by which the search prefers wanted phrases. Default: 5."
        ),
    ] = None

    def request(self) -> "Steering":
        """Return the steering that is asked for.

        Raises:
          UserError: a mistake in an option or in the glossary.
        """
        from nmt.decode.steering.glossary import Glossary
        from nmt.decode.steering.request import Steering

        if self.prefix_bias_beta and self.prefix is None:
            raise UserError("--prefix-bias-beta has an effect on a prefix only: add --prefix")
        if self.glossary_mode is not None and self.glossary is None:
            raise UserError("--glossary-mode has an effect on a glossary only: add --glossary")
        names = (
            "prefix",
            "prefix_bias_beta",
            "glossary_mode",
            "force",
            "forbid",
            "keep",
            "keep_pattern",
            "protect",
            "phrase_bonus",
        )
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.glossary is not None:
            given["glossary"] = Glossary.read(self.glossary)
        return Steering(**given)

    def check(self, vocabulary: "Callable[[], Vocabulary]") -> None:
        """Raise UserError for mistakes that show before a model is loaded; `vocabulary` is that of targets."""
        from nmt.decode.steering.pieces import PieceTable
        from nmt.decode.steering.request import SteeringPlanner

        request = self.request()
        if request.searches:
            SteeringPlanner(request, lambda: PieceTable(vocabulary()))

    def glossary_digest(self) -> str:
        """Return a digest of the content of the glossary; empty if there is none."""
        return "" if self.glossary is None else hashlib.sha256(Path(self.glossary).read_bytes()).hexdigest()
