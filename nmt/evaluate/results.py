"""Results of an evaluation: of one direction, and the matrix of all directions with its averages."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Self

from etils import epath

from nmt.evaluate.metrics import Cell
from nmt.languages import Direction, parse_direction

ENGLISH = "en"
FEW_DIRECTIONS = 12  # fewer are not told apart by their resources


@dataclass(frozen=True)
class ResultOrigin:
    """Weights, test set and decode options of a result: two results with equal origins have equal scores."""

    step: int
    checkpoint: str  # SHA-256 of the checkpoint's own record, which no other checkpoint shares; "" if it has none
    test_set: str  # SHA-256 of the pairs, as they were translated and scored
    decode: dict[str, Any]  # the decode section of the recipe, as used


@dataclass(frozen=True)
class DirectionResult:
    """The scores of one direction, and where they came from."""

    cell: Cell
    source: ResultOrigin
    hypotheses: str  # SHA-256 of the file of hypotheses
    seconds: float  # of translation, compilation included
    date: str  # ISO 8601, UTC
    reused: bool = field(default=False, compare=False)  # read from the run, not translated now

    @property
    def sentences_per_second(self) -> float:
        """Sentences translated in a second of wall-clock time."""
        return self.cell.sentences / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the direction's JSON file."""
        return {
            **asdict(self.cell),
            "direction": str(self.cell.direction),
            **asdict(self.source),
            "hypotheses": self.hypotheses,
            "seconds": self.seconds,
            "sentences_per_second": self.sentences_per_second,
            "date": self.date,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the result that `to_json` described.

        Raises:
          KeyError: a field is missing.
          UserError: it is of a direction that does not exist.
        """
        direction = parse_direction(values["direction"])
        stored = {"references": 1, **values}  # older versions knew no other number
        cell = Cell(**({name: stored[name] for name in Cell.__dataclass_fields__} | {"direction": direction}))
        source = ResultOrigin(**{name: values[name] for name in ResultOrigin.__dataclass_fields__})
        return cls(cell, source, values["hypotheses"], values["seconds"], values["date"], reused=True)


@dataclass(frozen=True)
class Average:
    """The plain mean over directions."""

    directions: int
    bleu: float
    chrf: float

    @classmethod
    def compute(cls, cells: Sequence[Cell]) -> Self | None:
        """Return the mean over the cells; None if there are none."""
        if not cells:
            return None
        return cls(len(cells), fmean(cell.bleu for cell in cells), fmean(cell.chrf for cell in cells))


@dataclass(frozen=True)
class Matrix:
    """The results of one model on one test set, in the order of evaluation."""

    folder: epath.Path  # RUN/evaluation/STEP/NAME
    recipe: str  # its name
    step: int
    test_set: str  # its name or path
    results: tuple[DirectionResult, ...]
    left_out: dict[str, str] = field(default_factory=dict)  # directions not evaluated, with the reason
    training_pairs: dict[Direction, int] = field(default_factory=dict)  # of the run, where they are known

    @property
    def cells(self) -> list[Cell]:
        """The scores alone."""
        return [result.cell for result in self.results]

    @property
    def date(self) -> str:
        """The time of the newest result, ISO 8601."""
        return max(result.date for result in self.results)

    @property
    def into_english(self) -> Average | None:
        """The mean over directions into English."""
        return Average.compute([cell for cell in self.cells if cell.direction.target == ENGLISH])

    @property
    def out_of_english(self) -> Average | None:
        """The mean over directions out of English."""
        return Average.compute([cell for cell in self.cells if cell.direction.source == ENGLISH])

    @property
    def overall(self) -> Average | None:
        """The mean over all directions."""
        return Average.compute(self.cells)

    @property
    def averages(self) -> dict[str, Average]:
        """The averages that there are, by the names that people read."""
        named = {"into English": self.into_english, "out of English": self.out_of_english, "overall": self.overall}
        named |= {name: Average.compute(cells) for name, cells in self._group_resources().items()}
        return {name: average for name, average in named.items() if average}

    def _group_resources(self) -> dict[str, list[Cell]]:
        """Return the directions into and out of English in thirds of their numbers of training pairs.

        They are not told apart where there are few, or where the pairs are not known.
        """
        thirds: dict[str, list[Cell]] = {}
        for side, name in ((1, "into English"), (0, "out of English")):
            cells = [cell for cell in self.cells if cell.direction[side] == ENGLISH]
            ranked = sorted(
                (cell for cell in cells if cell.direction in self.training_pairs),
                key=lambda cell: -self.training_pairs[cell.direction],
            )
            if len(ranked) < FEW_DIRECTIONS:
                continue
            for third, resource in enumerate(("high", "middle", "low")):
                low, high = (len(ranked) * bound // 3 for bound in (third, third + 1))
                thirds[f"{name}, {resource}-resource"] = ranked[low:high]
        return thirds

    def to_json(self) -> dict[str, Any]:
        """Return the content of matrix.json."""
        return {
            "recipe": self.recipe,
            "step": self.step,
            "test_set": self.test_set,
            "date": self.date,
            "averages": {
                name.lower().replace(",", "").replace(" ", "_"): asdict(average)
                for name, average in self.averages.items()
            },
            "training_pairs": {str(direction): pairs for direction, pairs in self.training_pairs.items()},
            "left_out": self.left_out,
            "results": [result.to_json() for result in self.results],
        }

    @classmethod
    def from_json(cls, folder: epath.Path, values: dict[str, Any]) -> Self:
        """Return the matrix that `to_json` described, written in a folder.

        Raises:
          KeyError: a field is missing.
          UserError: a result is of a direction that does not exist.
        """
        results = tuple(map(DirectionResult.from_json, values["results"]))
        pairs = {parse_direction(name): count for name, count in values.get("training_pairs", {}).items()}
        return cls(folder, values["recipe"], values["step"], values["test_set"], results, values["left_out"], pairs)
