"""Options of nmt-translate that say how translations are searched for."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import typer

from nmt.cli.option_groups import given_values


@dataclass(frozen=True, kw_only=True)
class SearchArguments:
    """The search: options of `Translator.options`, also by CTranslate2's names; None is the recipe's value."""

    title: ClassVar[str] = "Search (defaults are the recipe's)"

    beam: Annotated[
        int | None, typer.Option("--beam", "--beam-size", min=1, metavar="N", help="Beam width; 1 is greedy search.")
    ] = None
    hypotheses: Annotated[
        int | None,
        typer.Option(
            "--hypotheses",
            "--num-hypotheses",
            "--n-best",
            metavar="N",
            help="Translations of a line, best first, each on a line with its rank and score before it.",
        ),
    ] = None
    normalisation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Length normalisation of scores: gnmt, length or none.")
    ] = None
    length_penalty: Annotated[
        float | None, typer.Option(min=0.0, metavar="X", help="Exponent of length normalisation.")
    ] = None
    coverage_penalty: Annotated[
        float | None, typer.Option(metavar="X", help="Weight of GNMT's penalty for source tokens without attention.")
    ] = None
    patience: Annotated[
        float | None,
        typer.Option(metavar="X", help="End a search after beam times X finished hypotheses, not when it is decided."),
    ] = None
    early_stopping: Annotated[
        bool | None, typer.Option("--early-stopping/--no-early-stopping", help="Whether a search may end early.")
    ] = None
    min_length: Annotated[
        int | None,
        typer.Option("--min-length", "--min-decoding-length", metavar="N", help="Least tokens of output."),
    ] = None
    min_length_ratio: Annotated[
        float | None, typer.Option(metavar="X", help="Least tokens of an output: X times the source's.")
    ] = None
    max_length: Annotated[
        int | None, typer.Option("--max-length", "--max-decoding-length", metavar="N", help="Most tokens of output.")
    ] = None
    max_length_ratio: Annotated[
        float | None, typer.Option(metavar="X", help="Most tokens of an output: X times the source's, and some more.")
    ] = None
    no_repeat_ngram: Annotated[
        int | None,
        typer.Option("--no-repeat-ngram", "--no-repeat-ngram-size", metavar="N", help="No N tokens come twice."),
    ] = None
    repetition_penalty: Annotated[
        float | None, typer.Option(metavar="X", help="Penalty of tokens that an output has already; 1 is none.")
    ] = None
    suppress: Annotated[
        list[str] | None,
        typer.Option("--suppress", "--suppress-sequences", metavar="TEXT", help="Text that no output has; repeatable."),
    ] = None
    unknown: Annotated[
        str | None, typer.Option(metavar="POLICY", help="The token for unknown characters: never or allowed.")
    ] = None
    beam_groups: Annotated[int | None, typer.Option(metavar="N", help="Groups of diverse beam search.")] = None
    diversity: Annotated[float | None, typer.Option(metavar="X", help="How much its groups differ.")] = None
    sampling: Annotated[
        bool | None, typer.Option("--sampling/--no-sampling", help="Draw translations instead of searching.")
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", "--sampling-temperature", metavar="X", help="Of samples: below 1 more probable."),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", "--sampling-topk", metavar="N", help="Draw from the N likeliest tokens."),
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", "--sampling-topp", metavar="X", help="Draw from the most probable X of all tokens."),
    ] = None
    epsilon: Annotated[
        float | None, typer.Option(metavar="X", help="Draw from tokens of at least this probability.")
    ] = None
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of samples.")] = None
    batch_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Source tokens that are decoded at once; fewer take less memory."),
    ] = None
    alternatives: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --hypotheses: translations that differ at this token of the best one."),
    ] = None
    min_alternative_probability: Annotated[
        float | None, typer.Option(metavar="X", help="Least probability of a token that makes an alternative.")
    ] = None

    def given(self) -> dict[str, Any]:
        """Return the options that were given, as `SearchOptions.changed` takes them."""
        values = given_values(self)
        return values | ({"suppress": tuple(self.suppress)} if self.suppress else {})
