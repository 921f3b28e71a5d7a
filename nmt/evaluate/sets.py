"""Test sets: the stored splits of a run, and files that a person names.

    test, dev                RUN/data/test/de-en.jsonl ..., held out when the run's data was prepared
    a folder                 de-en.jsonl or de-en.tsv ..., one file a direction; any alias of a language in the names
    one .tsv or .jsonl file  one direction, to be named beside it

A .tsv line is source<TAB>target; a .jsonl line is {"source": ..., "target": ...}, further fields being ignored.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from etils import epath

from nmt.config.schema import Recipe
from nmt.errors import UserError, did_you_mean
from nmt.languages import Direction, parse_direction

STORED = ("test", "dev")
_OWN = "a folder of files such as de-en.jsonl or de-en.tsv, or one .tsv or .jsonl file"
ACCEPTED = f"test, dev, {_OWN}"
_EMPTY = "its test set has no sentences"


class Pair(NamedTuple):
    """A source sentence and its reference translation."""

    source: str
    target: str


class Selection(NamedTuple):
    """The directions to evaluate, and those that are not, each with the reason."""

    directions: list[Direction]
    left_out: dict[str, str]


@dataclass(frozen=True)
class EvaluationSet:
    """Held-out pairs of some directions: where they lie; nothing is read before it is asked for."""

    name: str  # names the folder of its results
    origin: str  # the path
    files: dict[Direction, epath.Path] = field(repr=False)
    most: int | None = None  # pairs of a direction, the first ones; None: all

    def read(self, direction: Direction) -> list[Pair]:
        """Return the pairs of a direction.

        Raises:
          UserError: no such direction here, or a file that cannot be read, is malformed or has no sentences.
        """
        if direction not in self.files:
            known = ", ".join(map(str, self.files))
            near = did_you_mean(str(direction), map(str, self.files))
            raise UserError(f"no test set for {direction} in {self.origin}{near} (there are: {known})")
        if not (pairs := _read_pairs(self.files[direction])):
            raise UserError(f"{self.files[direction]} has no sentences: there is nothing to evaluate for {direction}")
        return pairs[: self.most]


def stored_set(run: os.PathLike[str] | str, split: str, most: int | None = None) -> EvaluationSet:
    """Return a split (`test` or `dev`) that was held out when the run's data was prepared.

    Args:
      run: the run directory.
      split: which.
      most: pairs of a direction, the first ones (the recipe's `evaluate.sentences`); None: all.

    Raises:
      UserError: there is no such split, or the run has not stored it.
    """
    if split not in STORED:
        raise UserError(f"unknown test set {split!r}{did_you_mean(split, STORED)} (a test set is {ACCEPTED})")
    folder = epath.Path(run) / "data" / split
    if not (folder.is_dir() and (files := _files_by_direction(folder))):
        recipe = epath.Path(run) / "recipe.yaml"
        raise UserError(
            f"no stored {split} set in {folder}: `nmt-train recipe={recipe}` prepares it and then trains on"
        )
    return EvaluationSet(split, str(folder), files, most)


def open_set(
    run: os.PathLike[str] | str, testset: str, directions: Sequence[str] | None = None, most: int | None = None
) -> EvaluationSet:
    """Return the test set that a person named (the module's description lists the accepted forms).

    Args:
      run: the run directory, for its stored splits.
      testset: `test`, `dev` or a path.
      directions: those to evaluate; exactly one must be given when `testset` is a single file.
      most: of a stored split, see `stored_set`; files are read whole.

    Raises:
      UserError: nothing of that kind is there, or a file's direction is not known.
    """
    if testset in STORED:
        return stored_set(run, testset, most)
    path = epath.Path(testset)
    if not path.exists():
        near = did_you_mean(testset, STORED)
        raise UserError(f"no test set {testset}: there is no such file or folder{near} (a test set is {ACCEPTED})")
    # Two sets may have the same name: their results must not share a folder with each other, nor with a stored split.
    name = f"{path.stem}-{hashlib.sha256(os.fspath(path.resolve()).encode()).hexdigest()[:8]}"
    if path.is_dir():
        if not (files := _files_by_direction(path)):
            raise UserError(f"{testset} holds no test set: expected files such as de-en.jsonl or de-en.tsv")
        return EvaluationSet(name, testset, files)
    if path.suffix not in _PARSERS:
        raise UserError(f"{testset} is not a test set that can be read: give {ACCEPTED}")
    if directions is None or len(directions) != 1:
        raise UserError(f"{testset} holds one direction: say which with exactly one pair, such as --pairs de-en")
    return EvaluationSet(name, testset, {parse_direction(directions[0]): path})


def select(chosen: EvaluationSet, recipe: Recipe, wanted: Sequence[str] | None) -> Selection:
    """Return the directions to evaluate: the wanted ones, by default all that the set has and the model can translate.

    Directions that the model was not trained on are allowed if it knows both languages (zero-shot).

    Raises:
      UserError: no direction is wanted; a wanted one has no test set, or a language that the model does not know;
        or no direction is left by default.
    """
    trained = [parse_direction(text) for text in recipe.data.directions]
    known = {code for direction in trained for code in direction}
    if wanted is not None:
        if not wanted:
            raise UserError(
                f"no direction is given (in {chosen.origin} there are: {', '.join(map(str, chosen.files))})"
            )
        directions = list(dict.fromkeys(parse_direction(text) for text in wanted))
        for direction in directions:
            _check_known(direction, known)
            chosen.read(direction)
        return Selection(directions, {})
    expected = trained if chosen.name in STORED else ()
    left_out = {str(direction): "it has no test set" for direction in expected if direction not in chosen.files}
    directions = []
    for direction in ordered_directions(chosen, recipe):
        if unknown := [code for code in direction if code not in known]:
            left_out[str(direction)] = f"the model does not know {' and '.join(unknown)}"
        elif chosen.files[direction].stat().length == 0:
            left_out[str(direction)] = _EMPTY
        else:
            directions.append(direction)
    if not directions and chosen.name in STORED and set(left_out.values()) == {_EMPTY}:
        raise UserError(
            f"nothing to evaluate: the run in {os.path.dirname(os.path.dirname(chosen.origin))} held no {chosen.name} "
            f"text out; give it text with --testset, {_OWN}"
        )
    if not directions:
        reasons = "; ".join(f"{direction}: {reason}" for direction, reason in left_out.items())
        raise UserError(f"nothing to evaluate in {chosen.origin}: {reasons}")
    return Selection(directions, left_out)


def ordered_directions(chosen: EvaluationSet, recipe: Recipe) -> list[Direction]:
    """Return the directions of a test set: those of the recipe in its order, then the others."""
    trained = [parse_direction(text) for text in recipe.data.directions]
    return list(dict.fromkeys([*filter(chosen.files.__contains__, trained), *chosen.files]))


def content_hash(pairs: Iterable[Pair]) -> str:
    """Return the SHA-256 of the pairs, whatever kind of file they came from."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps(pair).encode() + b"\n")
    return digest.hexdigest()


def _check_known(direction: Direction, known: set[str]) -> None:
    for code in direction:
        if code not in known:
            near = did_you_mean(code, known)
            raise UserError(f"{direction}: the model does not know {code}{near} (it knows {', '.join(sorted(known))})")


def _files_by_direction(folder: epath.Path) -> dict[Direction, epath.Path]:
    files: dict[Direction, epath.Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in _PARSERS or path.name.startswith("."):
            continue
        try:
            direction = parse_direction(path.stem)
        except UserError as error:
            raise UserError(f"{path} is not named after a direction: {error}") from None
        if direction in files:
            raise UserError(f"{files[direction]} and {path} are both for {direction}: remove one")
        files[direction] = path
    return files


def _read_pairs(path: epath.Path) -> list[Pair]:
    """Return the pairs of a file; lines end with a newline and with nothing else (U+2028, for one, is text)."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start})") from None
    if not lines[-1]:
        lines.pop()
    parse, expected = _PARSERS[path.suffix]
    pairs = []
    for number, line in enumerate(lines, start=1):
        pair = parse(line.removesuffix("\r"))
        if pair is None or not all(side.strip() for side in pair):
            raise UserError(f"{path}:{number}: expected {expected}, neither of them blank")
        pairs.append(pair)
    return pairs


def _parse_json(line: str) -> Pair | None:
    try:
        values = json.loads(line)
        source, target = values["source"], values["target"]
        f"{source}{target}".encode()  # half a surrogate pair, which JSON can spell, is no text
    except (ValueError, TypeError, KeyError):
        return None
    return Pair(source, target) if isinstance(source, str) and isinstance(target, str) else None


def _parse_tsv(line: str) -> Pair | None:
    sides = line.split("\t")
    return Pair(*sides) if len(sides) == 2 else None


_PARSERS: dict[str, tuple[Callable[[str], Pair | None], str]] = {
    ".jsonl": (_parse_json, '{"source": ..., "target": ...}'),
    ".tsv": (_parse_tsv, "source<TAB>target"),
}
