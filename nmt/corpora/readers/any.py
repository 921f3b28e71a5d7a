"""Files of pairs whose kind follows from the pattern (`read.kind: any`)."""

from typing import Any

from pydantic import ValidationError

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_read import AnyPairs, ParallelText, Read, TfdsDataset
from nmt.corpora.declare.spec_read_columns import Arrow, Csv, Json, Jsonl, Parquet, Tsv
from nmt.corpora.readers.compressed import stem
from nmt.errors import UserError

_TFDS = "tfds:"
_SECTIONS: dict[str, Any] = {
    "tsv": Tsv,
    "csv": Csv,
    "jsonl": Jsonl,
    "json": Json,
    "parquet": Parquet,
    "arrow": Arrow,
}
_KINDS = {**{kind: kind for kind in _SECTIONS}, "ndjson": "jsonl"}  # by ending


def resolve_pairs(spec: CorpusSpec, read: AnyPairs, patterns: tuple[str, ...]) -> tuple[Read, tuple[str, ...]]:
    """Return the section of the kind that patterns of files of pairs are of, and the patterns as that kind writes them.

    Args:
      spec: the declaration.
      read: its section.
      patterns: without variables; several in one are separated by commas.

    Raises:
      UserError: they are of several kinds, or do not say where the languages of a direction stand.
    """
    patterns = tuple(one.strip() for pattern in patterns for one in pattern.split(",") if one.strip())
    common: dict[str, Any] = {"files": patterns, "key_language": read.key_language}
    kinds = {_kind_by_ending(pattern) for pattern in patterns}
    shown = ", ".join(patterns)
    if len(kinds) != 1:
        several = ", ".join(sorted(kinds))
        raise UserError(
            f"corpus {spec.name}: {shown} are files of several kinds ({several}): declare a corpus for each"
        )
    for pattern in patterns:
        if not all(field in pattern for field in ("{source}", "{target}")):
            raise UserError(
                f"corpus {spec.name}: {pattern} does not say where the languages of a direction stand, as in "
                "/corpora/{source}-{target}.tsv.gz or /corpora/{source}-{target}/train.{language}"
            )
    kind = kinds.pop()
    if kind == "tfds":
        patterns = tuple(pattern.removeprefix(_TFDS) for pattern in patterns)
        return TfdsDataset(kind="tfds", **common | {"files": patterns}), patterns
    if kind in _SECTIONS:
        section: Any = _SECTIONS[kind](kind=kind, **common)
        return section, patterns
    try:
        return ParallelText(kind="parallel_text", **common), patterns
    except ValidationError:
        raise UserError(
            f"corpus {spec.name}: {shown} is taken for parallel text, and does not have {{language}} once; other files "
            "of pairs end in .tsv, .csv, .jsonl, .json, .parquet or .arrow"
        ) from None


def _kind_by_ending(pattern: str) -> str:
    if pattern.startswith(_TFDS):
        return "tfds"
    return _KINDS.get(stem(pattern).rpartition(".")[2], "parallel text")
