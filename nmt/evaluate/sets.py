"""Test sets: the stored splits of a run, and files that a person names.

test, dev                RUN/data/test/de-en.jsonl ..., held out when the run's data was prepared
a folder                 files of a direction or a language each, as nmt/evaluate/layouts.py lists them
a pattern                the files of such a folder that it fits, such as 'sets/test.*'
files, with commas       a source and its references
one .tsv or .jsonl file  one direction, to be named beside it
one .xml file of WMT     the directions that it has
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from etils import epath

from nmt.config.schema import Recipe
from nmt.errors import UserError, did_you_mean
from nmt.evaluate.layouts import arrange_directions, arrange_folder, arrange_list, arrange_tico
from nmt.evaluate.pairs import PAIR_ENDINGS, Pair, PairFile, PairSource, pair_ending
from nmt.languages import Direction, fits_pattern, is_pattern, parse_direction

STORED = ("test", "dev")
_OWN = "a folder of files such as de-en.tsv or deu_Latn.devtest, or one .tsv, .jsonl or .xml file"
ACCEPTED = f"test, dev, {_OWN}"
_EMPTY = "its test set has no sentences"
_WILD = "*?["
_SHOWN = 12  # directions in an error
_ALL = "all"  # as a pattern of directions: *-*


class Selection(NamedTuple):
    """The directions to evaluate, and those that are not, each with the reason."""

    directions: list[Direction]
    left_out: dict[str, str]


@dataclass(frozen=True)
class EvaluationSet:
    """Held-out pairs of some directions: where they lie; nothing is read before it is asked for."""

    name: str  # names the folder of its results
    origin: str  # the path
    files: Mapping[Direction, PairSource] = field(repr=False)
    most: int | None = None  # pairs of a direction, the first ones; None: all
    notes: tuple[str, ...] = ()  # what of the files is left out, each a line

    def source(self, direction: Direction) -> PairSource:
        """Return where the pairs of a direction lie. Raises UserError: no such direction here."""
        if direction not in self.files:
            alike = [str(one) for one in self.files if direction.source == one.source or direction.target == one.target]
            near = did_you_mean(str(direction), alike or map(str, [*self.files][:_SHOWN]))
            raise UserError(f"no test set for {direction} in {self.origin}{near} (there are: {self.shown})")
        return self.files[direction]

    @property
    def shown(self) -> str:
        """The directions, for messages; of many the first ones."""
        more = f" and {len(self.files) - _SHOWN:,} more" if len(self.files) > _SHOWN else ""
        return ", ".join(map(str, [*self.files][:_SHOWN])) + more

    def read(self, direction: Direction) -> list[Pair]:
        """Return the pairs of a direction.

        Raises:
          UserError: no such direction here, or a file that cannot be read, is malformed or has no sentences.
        """
        source = self.source(direction)
        if not (pairs := source.read()):
            raise UserError(f"{source} has no sentences: there is nothing to evaluate for {direction}")
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
    if not (folder.is_dir() and (files := _stored_files(folder))):
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
      testset: `test`, `dev`, a path, a pattern, or paths with commas between them.
      directions: those to evaluate; exactly one must be given where files do not say their languages.
      most: of a stored split, see `stored_set`; files are read whole.

    Raises:
      UserError: nothing of that kind is there, or a file's direction is not known.
    """
    if testset in STORED:
        return stored_set(run, testset, most)
    path = epath.Path(testset)
    if path.exists():
        paths = [path]
    elif any(mark in path.name for mark in _WILD) and path.parent.is_dir():
        return _folder_set(testset, path.parent.glob(path.name), path.parent)
    else:
        paths = [epath.Path(part.strip()) for part in testset.split(",") if part.strip()]
    for one in paths:
        if not one.exists():
            near = did_you_mean(testset, STORED)
            raise UserError(f"no test set {one}: there is no such file or folder{near} (a test set is {ACCEPTED})")
    if len(paths) > 1:
        found = arrange_list(paths, directions)
        return EvaluationSet(_result_name(testset, paths[0]), testset, found.sources, notes=tuple(found.notes))
    if path.is_dir():
        return _folder_set(testset, path.iterdir(), path)
    return _file_set(testset, path, directions)


def _folder_set(testset: str, paths: Iterable[epath.Path], folder: epath.Path) -> EvaluationSet:
    files = [one for one in paths if not one.is_dir()]
    found = arrange_folder(files)
    if not found.sources:
        inside = sorted(one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
        notes = "".join(f"; {note}" for note in found.notes[:_SHOWN])
        name = f"; perhaps it is in a folder below: {', '.join(inside[:6])}" if inside else ""
        raise UserError(
            f"{testset} holds no test set: expected files such as de-en.jsonl, de-en.tsv, deu_Latn.devtest and "
            f"eng_Latn.devtest, or .sgm and .xml of WMT{notes}{name}"
        )
    return EvaluationSet(_result_name(testset, epath.Path(testset)), testset, found.sources, notes=tuple(found.notes))


def _file_set(testset: str, path: epath.Path, directions: Sequence[str] | None) -> EvaluationSet:
    name = _result_name(testset, path)
    if pair_ending(path) in PAIR_ENDINGS:
        if (found := arrange_tico(path)).sources or found.notes:
            return EvaluationSet(name, testset, found.sources, notes=tuple(found.notes))
        if directions is None or len(directions) != 1:
            raise UserError(f"{testset} holds one direction: say which with exactly one pair, such as --pairs de-en")
        return EvaluationSet(name, testset, {parse_direction(directions[0]): PairFile(path)})
    if pair_ending(path) in (".xml", ".sgm"):
        found = arrange_folder([path])
        if found.sources:
            return EvaluationSet(name, testset, found.sources, notes=tuple(found.notes))
        raise UserError(f"{testset} has no source with a reference: give its other file as well, with a comma between")
    raise UserError(f"{testset} is not a test set that can be read: give {ACCEPTED}")


def _result_name(testset: str, path: epath.Path) -> str:
    """Return the name of the folder of results.

    Two sets may have the same name: their results must not share a folder with each other, nor with a stored split.
    """
    parts = [os.fspath(epath.Path(part).resolve()) for part in testset.split(",")]
    name = path.stem.replace("*", "").strip(".") or "set"
    return f"{name}-{hashlib.sha256(','.join(parts).encode()).hexdigest()[:8]}"


def select(chosen: EvaluationSet, recipe: Recipe, wanted: Sequence[str] | None) -> Selection:
    """Return the directions to evaluate: the wanted ones, by default all that the set has and the model can translate.

    Directions that the model was not trained on are allowed if it knows both languages (zero-shot).

    Args:
      chosen: the test set.
      recipe: that of the run.
      wanted: directions, and patterns such as `*-en`, `en-*` and `all`, which stand for directions that the set has and
        the model can translate; None: `all`.

    Raises:
      UserError: no direction is wanted; a wanted one has no test set, or a language that the model does not know;
        no direction is left; or the files of a chosen one do not fit together.
    """
    known = {code for text in recipe.data.directions for code in parse_direction(text)}
    if wanted is not None and not wanted:
        raise UserError(f"no direction is given (in {chosen.origin} there are: {chosen.shown})")
    if wanted is None:
        possible = _possible(chosen, recipe, known)
        for direction in possible.directions:
            if not isinstance(chosen.files[direction], PairFile):  # a file a direction is read when its turn comes
                chosen.files[direction].check()
        return possible
    directions = [one for text in wanted for one in _expand(text, chosen, recipe, known)]
    return Selection(list(dict.fromkeys(directions)), {})


def _expand(text: str, chosen: EvaluationSet, recipe: Recipe, known: set[str]) -> list[Direction]:
    """Return the directions that a person wrote so, checked."""
    pattern = "*-*" if text == _ALL else text
    if is_pattern(pattern):
        possible = _possible(chosen, recipe, known)
        found = [direction for direction in possible.directions if fits_pattern(pattern, direction)]
        if not found:
            raise UserError(f"no direction of {chosen.origin} that the model can translate is {text}")
    else:
        found = [parse_direction(text)]
        _check_known(found[0], known)
    for direction in found:
        chosen.source(direction).check()
        if chosen.source(direction).is_empty():
            chosen.read(direction)  # raises
    return found


def _possible(chosen: EvaluationSet, recipe: Recipe, known: set[str]) -> Selection:
    """Return all directions that the set has and the model can translate; raises UserError if there is none."""
    expected = [parse_direction(text) for text in recipe.data.directions] if chosen.name in STORED else []
    left_out = {str(direction): "it has no test set" for direction in expected if direction not in chosen.files}
    directions = []
    unknown = {one: codes for one in chosen.files if (codes := [code for code in one if code not in known])}
    left_out |= _name_unknown(unknown)
    for direction in ordered_directions(chosen, recipe):
        if direction in unknown:
            continue
        if chosen.files[direction].is_empty():
            left_out[str(direction)] = _EMPTY
        else:
            directions.append(direction)
    if not directions:
        raise _nothing_left(chosen, left_out)
    return Selection(directions, left_out)


def _name_unknown(unknown: Mapping[Direction, Sequence[str]]) -> dict[str, str]:
    """Return why directions are left out whose languages the model does not know; of many the languages are named."""
    if len(unknown) <= _SHOWN:
        return {str(one): f"the model does not know {' and '.join(codes)}" for one, codes in unknown.items()}
    return dict.fromkeys(sorted({code for codes in unknown.values() for code in codes}), "the model does not know it")


def _nothing_left(chosen: EvaluationSet, left_out: Mapping[str, str]) -> UserError:
    if chosen.name in STORED and set(left_out.values()) == {_EMPTY}:
        return UserError(
            f"nothing to evaluate: the run in {os.path.dirname(os.path.dirname(chosen.origin))} held no {chosen.name} "
            f"text out; give it text with --testset, {_OWN}"
        )
    reasons = "; ".join(f"{direction}: {reason}" for direction, reason in [*left_out.items()][:_SHOWN])
    more = f"; and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    return UserError(f"nothing to evaluate in {chosen.origin}: {reasons}{more}")


def ordered_directions(chosen: EvaluationSet, recipe: Recipe) -> list[Direction]:
    """Return the directions of a test set: those of the recipe in its order, then the others."""
    trained = [parse_direction(text) for text in recipe.data.directions]
    return list(dict.fromkeys([*filter(chosen.files.__contains__, trained), *chosen.files]))


def _check_known(direction: Direction, known: set[str]) -> None:
    for code in direction:
        if code not in known:
            near = did_you_mean(code, known)
            raise UserError(f"{direction}: the model does not know {code}{near} (it knows {', '.join(sorted(known))})")


def _stored_files(folder: epath.Path) -> dict[Direction, PairSource]:
    paths = [path for path in folder.iterdir() if pair_ending(path) in PAIR_ENDINGS and not path.name.startswith(".")]
    return arrange_directions(paths).sources
