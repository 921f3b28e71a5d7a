"""The matrix of directions: every direction of a test set translated by one loaded model, scored, written and resumed.

    RUN/evaluation/STEP/test/de-en.json             scores, signatures, decode options, speed, hash of the test set
    RUN/evaluation/STEP/test/hypotheses/de-en.txt   one line a sentence
    RUN/evaluation/STEP/test/matrix.json            every direction, and the averages
    RUN/evaluation/STEP/test/matrix.md              the same as a table in Markdown, to be copied into a page
    RUN/evaluation/STEP/test/report.html            the same for people, with sample translations

A direction is translated again only if the checkpoint, its test set or the decode options changed, so that an
interrupted evaluation goes on where it was, and several processes may share the directions of one run.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from etils import epath

from nmt.config.schema import Recipe
from nmt.corpora.clean.signs import SignCounter
from nmt.data.store import load_stats
from nmt.errors import UserError
from nmt.evaluate.forms import ScoringForm
from nmt.evaluate.metrics import Cell, score, text_faults
from nmt.evaluate.pairs import Pair, content_hash
from nmt.evaluate.report import render_markdown
from nmt.evaluate.results import DirectionResult, Matrix, ResultOrigin
from nmt.evaluate.samples import hypotheses_file, read_samples
from nmt.evaluate.sets import STORED, EvaluationSet, ordered_directions, select, stored_set
from nmt.evaluate.webpage import render_page
from nmt.files import atomic_write
from nmt.languages import Direction, parse_stream
from nmt.progress import SILENT, Reporter

PAGE_DIRECTIONS = 60  # most directions with sample translations on the page
PAGE_SAMPLES = 4  # sample translations of a direction


class Translates(Protocol):
    """The interface of a translator that an evaluation uses; `nmt.decode.translator.Translator` is one."""

    @property
    def step(self) -> int:
        """Step of the loaded checkpoint."""

    @property
    def recipe(self) -> Recipe:
        """Recipe of the run."""

    @property
    def precision(self) -> str:
        """Precision of the weights."""

    def translate(
        self,
        lines: Sequence[str],
        source: str,
        target: str,
        *,
        beam: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """Return one translation a line; `progress` is told how many lines are done."""


def evaluate(
    translator: Translates,
    run: os.PathLike[str] | str,
    *,
    split: str | EvaluationSet = "test",
    directions: Sequence[str] | None = None,
    beam: int | None = None,
    references: str | None = None,
    force: bool = False,
    progress: Reporter = SILENT,
) -> Matrix:
    """Translate and score a test set, direction by direction, and write the results under RUN/evaluation.

    Args:
      translator: the loaded model.
      run: the run directory.
      split: `test` or `dev`, or a set from `nmt.evaluate.sets.open_set`.
      directions: such as `["de-en"]`; None: all that the set has and the model can translate.
      beam: beam width; None: the recipe's.
      references: `normalised` or `raw`, see `nmt.evaluate.forms`; None: the recipe's.
      force: translate again directions that have a valid result.
      progress: told of every result, new or stored, and of the sentences that are translated.

    Returns:
      the matrix of the directions asked for. The files of the matrix also hold those that other calls found
      with the same checkpoint, test set and decode options.

    Raises:
      UserError: no such test set, no such direction in it, or an empty one; the results cannot be written.
    """
    most = translator.recipe.evaluate.sentences
    chosen = split if isinstance(split, EvaluationSet) else stored_set(run, split, most)
    selection = select(chosen, translator.recipe, directions)
    job = _Job.prepare(translator, epath.Path(run), chosen, beam, ScoringForm.choose(translator.recipe, references))
    results = {}
    for direction in selection.directions:
        results[direction] = job.result(direction, force, progress)
        progress.say(_summary(results[direction]))
    for finding in job.signs.warnings():
        progress.warn(f"{finding}; scores are those of such text")
    job.write_matrix(results, selection.left_out)
    return job.matrix(results.values(), selection.left_out)


@dataclass(frozen=True)
class _Job:
    """One checkpoint on one test set with one way of decoding."""

    translator: Translates
    chosen: EvaluationSet
    folder: epath.Path
    checkpoint: str
    decode: dict[str, Any]
    form: ScoringForm
    training_pairs: dict[Direction, int]
    signs: SignCounter = field(default_factory=lambda: SignCounter("the test set"))

    @classmethod
    def prepare(
        cls, translator: Translates, run: epath.Path, chosen: EvaluationSet, beam: int | None, form: ScoringForm
    ) -> "_Job":
        from nmt.models.dtypes import resolve_dtype  # imports JAX

        decode = translator.recipe.decode.model_dump(mode="json")
        if beam is not None:
            decode["beam"] = beam
        if translator.precision != resolve_dtype(translator.recipe.model.dtype):
            decode["precision"] = translator.precision
        folder = run / "evaluation" / str(translator.step) / chosen.name
        try:
            (folder / "hypotheses").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write results to {folder}: {error.strerror or error}") from None
        checkpoint = _checkpoint_hash(run, translator.step)
        return cls(translator, chosen, folder, checkpoint, decode, form, _training_pairs(run))

    def result(self, direction: Direction, force: bool, progress: Reporter) -> DirectionResult:
        """Return the result of a direction: the stored one if it is still valid, else a new one, written."""
        if not force and (stored := self._stored(direction)):
            return stored
        pairs = self._read(direction)
        self._look_for_signs(direction, pairs)
        hypotheses, seconds = self._translate(direction, pairs, progress)
        sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
        cell = score(direction, sources, hypotheses, references, _further_references(pairs))
        text = "".join(f"{line}\n" for line in hypotheses).encode()
        date = datetime.now(UTC).isoformat(timespec="seconds")
        result = DirectionResult(
            self._marked(cell), self._source(pairs), hashlib.sha256(text).hexdigest(), seconds, date
        )
        _write(hypotheses_file(self.folder, direction), text)
        _write(self.folder / f"{direction}.json", _encode_json(result.to_json()))
        return result

    def matrix(self, results: Iterable[DirectionResult], left_out: dict[str, str]) -> Matrix:
        name = self.chosen.name if self.chosen.name in STORED else self.chosen.origin
        recipe, step = self.translator.recipe, self.translator.step
        return Matrix(self.folder, recipe.name, step, name, tuple(results), left_out, self.training_pairs)

    def write_matrix(self, results: dict[Direction, DirectionResult], left_out: dict[str, str]) -> None:
        """Write matrix.json, matrix.md and report.html of these results and of stored ones that are still valid."""
        known = [results.get(d) or self._stored(d) for d in ordered_directions(self.chosen, self.translator.recipe)]
        matrix = self.matrix([result for result in known if result], left_out)
        shown = [cell.direction for cell in matrix.cells[:PAGE_DIRECTIONS]]
        samples = [sample for d in shown for sample in read_samples(self.folder, self.chosen, d, PAGE_SAMPLES)]
        _write(self.folder / "matrix.json", _encode_json(matrix.to_json()))
        _write(self.folder / "matrix.md", render_markdown(matrix).encode())
        _write(self.folder / "report.html", render_page(matrix, samples).encode())

    def _look_for_signs(self, direction: Direction, pairs: Sequence[Pair]) -> None:
        """Count the signs of tokenised text and the like, once for each language."""
        sides = {direction.source: [pair.source for pair in pairs], direction.target: [pair.target for pair in pairs]}
        for language, texts in sides.items():
            if language not in self.signs.languages:
                self.signs.add(texts, language)

    def _read(self, direction: Direction) -> list[Pair]:
        """Return the pairs of a direction as they are translated and scored."""
        return [self.form.bring(pair) for pair in self.chosen.read(direction)]

    def _marked(self, cell: Cell) -> Cell:
        mark = self.form.mark
        return replace(cell, bleu_signature=mark(cell.bleu_signature), chrf_signature=mark(cell.chrf_signature))

    def _source(self, pairs: Sequence[Pair]) -> ResultOrigin:
        return ResultOrigin(self.translator.step, self.checkpoint, content_hash(pairs), self.decode)

    def _stored(self, direction: Direction) -> DirectionResult | None:
        """Return the stored result of a direction if checkpoint, test set and decode options are the same."""
        try:
            values = json.loads((self.folder / f"{direction}.json").read_bytes())
            hypotheses = hypotheses_file(self.folder, direction).read_bytes()
            pairs = self._read(direction)
            if "loops" not in values:  # older versions did not count them
                values |= text_faults([pair.source for pair in pairs], hypotheses.decode().split("\n")[:-1])
            stored = DirectionResult.from_json(values)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, UserError):
            return None  # of another version, or damaged
        if stored.hypotheses != hashlib.sha256(hypotheses).hexdigest():
            return None
        if stored.source != self._source(pairs):
            return None
        # Equal text has equal scores, whichever form was asked for when they were computed.
        return replace(stored, cell=self._marked(stored.cell))

    def _translate(self, direction: Direction, pairs: Sequence[Pair], progress: Reporter) -> tuple[list[str], float]:
        """Return the hypotheses and the seconds that they took."""
        lines = [pair.source for pair in pairs]
        with progress.track(str(direction), len(pairs), "sentences") as task:
            start = time.perf_counter()
            hypotheses = self.translator.translate(
                lines, direction.source, direction.target, beam=self.decode["beam"], progress=task.update
            )
            return hypotheses, time.perf_counter() - start


def _summary(result: DirectionResult) -> str:
    """Return a result on one line."""
    cell = result.cell
    how = "as before" if result.reused else f"{result.sentences_per_second:.1f} sentences/s"
    return f"{cell.direction!s:<8} BLEU {cell.bleu:5.1f}  chrF++ {cell.chrf:5.1f}  ({how})"


def _further_references(pairs: Sequence[Pair]) -> list[tuple[str, ...]]:
    """Return the references of each pair beyond the first; empty if no pair has any."""
    return [pair.others for pair in pairs] if any(pair.others for pair in pairs) else []


def _training_pairs(run: epath.Path) -> dict[Direction, int]:
    """Return the training pairs of each direction; empty if the run has no store."""
    try:
        found = load_stats(run / "data").directions
    except UserError:
        return {}
    pairs = {parse_stream(name): stats.splits["train"].pairs for name, stats in found.items()}
    return {direction: count for direction, count in pairs.items() if not direction.denoises}


def _checkpoint_hash(run: epath.Path, step: int) -> str:
    """Return a hash that tells this checkpoint from another training's at the same step; '' if it has no record."""
    record = run / "checkpoints" / str(step) / "_CHECKPOINT_METADATA"
    return hashlib.sha256(record.read_bytes()).hexdigest() if record.exists() else ""


def _encode_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def _write(path: epath.Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
