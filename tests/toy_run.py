"""Small corpora of Spanish and English of the language game, a recipe that learns from them, and its prepared store."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath
from synthetic import lexicon, sentence, translation
from toy_corpus import write_spec

from nmt.config import Recipe
from nmt.data.batch import Batch
from nmt.data.vocabularies import Vocabularies
from nmt.languages import Direction
from nmt.progress import SILENT
from nmt.recipes.stages import RunPreparation

ES_EN, EN_ES = Direction("es", "en"), Direction("en", "es")


def declared(folder: Path, name: str, seed: int, count: int = 60, **more: Any) -> tuple[str, list[tuple[str, str]]]:
    """Write a corpus of Spanish and English, and its declaration; return its path and its (es, en) pairs."""
    generator, rows = random.Random(seed), []
    for number in range(count):
        english = sentence(generator, lexicon())
        rows.append((("dev", "test", "train")[min(number // 4, 2)], translation(english, "es"), english))
    for component in ("dev", "test", "train"):
        for language, column in (("es", 1), ("en", 2)):
            lines = [f"{row[column]}\n" for row in rows if row[0] == component]
            (folder / f"{name}.{component}.{language}").write_text("".join(lines))
    values = {
        "name": name,
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(folder)},
        "read": {"kind": "parallel_text", "files": f"{name}.{{component}}.{{language}}", "key_language": "en"},
        "split": {"by": "name", "test": ["test"], "dev": ["dev"]},
    }
    return write_spec(folder, values | more, f"{name}.yaml"), [row[1:] for row in rows if row[0] == "train"]


def recipe_of(folder: Path, *corpora: str, **data: Any) -> Recipe:
    """Return a recipe of both directions; its run is a folder beside the corpora."""
    values = {"corpora": corpora, "directions": ("es-en", "en-es"), "clean": {"max_overlap": None}, **data}
    return Recipe(name="toy", run_dir=str(folder / "run"), data=values, vocab={"size": 330})


def prepared(recipe: Recipe) -> tuple[RunPreparation, Vocabularies]:
    """Learn the vocabulary of a recipe and write its store."""
    preparation = RunPreparation(recipe, epath.Path(recipe.run_dir), SILENT)
    vocabularies = preparation.vocabularies()
    preparation.stats(vocabularies)
    return preparation, vocabularies


def segments(batch: Batch) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the (source, target) tokens of every pair of a batch, with the tokens around the pieces."""
    for row in range(len(batch.src)):
        for segment in range(1, batch.src_segment[row].max() + 1):
            source = batch.src[row][batch.src_segment[row] == segment].tolist()
            yield source, batch.tgt_out[row][batch.tgt_segment[row] == segment].tolist()


def drawn(batches: Iterator[Batch], count: int) -> list[Batch]:
    """Return the next batches."""
    return [next(batches) for _ in range(count)]
