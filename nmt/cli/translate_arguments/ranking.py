"""Options of nmt-translate that choose translations by another measure than their probability."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.decode.ranking import Ranking


@dataclass(frozen=True, kw_only=True)
class RankingArguments:
    """Minimum Bayes risk, and rerankers."""

    title: ClassVar[str] = "Choice among candidates"

    mbr: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Minimum Bayes risk: of N samples the one that is most like all (chrF). Samples have tokens of at "
            "least probability 0.02, unless --epsilon, --top-k, --top-p or --temperature say otherwise.",
        ),
    ] = None
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="The candidate that a command gives the greatest number. It reads lines of source, tab and candidate, "
            "and answers each at once with one number.",
        ),
    ] = None
    candidates: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --rerank: candidates of a line. Default: the beam.")
    ] = None

    def search_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return options of the search, those that only samples have made valid where samples are drawn.

        Raises:
          UserError: options exclude each other.
        """
        if self.mbr is not None and self.rerank is not None:
            raise UserError("--mbr and --rerank exclude each other")
        if self.mbr is not None and self.mbr < 2:
            raise UserError(f"--mbr needs two samples at least (not {self.mbr})")
        if self.candidates is not None and self.rerank is None:
            raise UserError("--candidates has an effect on --rerank only")
        if self.mbr is not None and given.get("sampling") is False:
            raise UserError("--mbr chooses among samples: leave --no-sampling out")
        if self.mbr is not None and {"epsilon", "top_k", "top_p", "temperature"} & given.keys():
            return {**given, "sampling": True}
        return dict(given)

    def open(self) -> "contextlib.AbstractContextManager[Ranking | None]":
        """Return a context manager that yields the ranking asked for.

        Raises:
          UserError: the command of a reranker cannot be started.
        """
        from nmt.decode.mbr import MinimumBayesRisk
        from nmt.decode.rerank import CommandRanking

        if self.rerank is not None:
            return CommandRanking(self.rerank, self.candidates)
        return contextlib.nullcontext(None if self.mbr is None else MinimumBayesRisk(self.mbr))
