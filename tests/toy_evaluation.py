"""A translator that answers by a rule, and test sets to try it on."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nmt.config import DataConfig, Recipe
from nmt.models.dtypes import resolve_dtype

TEXT = {
    "de-en": [("Das Haus ist rot.", "The house is red."), ("Ein Hund bellt laut.", "A dog barks loudly.")],
    "en-de": [("The house is red.", "Das Haus ist rot.")],
    "es-en": [("La casa es roja.", "The house is red."), ("Hola a todos.", "Hello everybody."), ("Sí.", "Yes.")],
}
RECIPE = Recipe(name="toy", data=DataConfig(corpora=("toy",), directions=("es-en", "de-en", "en-de")))


class FakeTranslator:
    """Puts the same words before every line, and remembers what it was asked for."""

    def __init__(self, step: int = 7, recipe: Recipe = RECIPE, fail_on: str = "", precision: str = "") -> None:
        self.step, self.recipe, self.fail_on = step, recipe, fail_on
        self.precision = precision or resolve_dtype(recipe.model.dtype)
        self.asked: list[tuple[str, int | None]] = []

    def translate(
        self,
        lines: Sequence[str],
        source: str,
        target: str,
        *,
        beam: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        if f"{source}-{target}" == self.fail_on:
            raise KeyboardInterrupt
        self.asked.append((f"{source}-{target}", beam))
        if progress:
            progress(len(lines))
        return [f"The house is {line}" for line in lines]


def write_set(folder: Path, text: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Write a test set as a run stores it, one .jsonl file a direction."""
    folder.mkdir(parents=True, exist_ok=True)
    for direction, pairs in text.items():
        lines = [json.dumps({"source": s, "target": t}, ensure_ascii=False) + "\n" for s, t in pairs]
        (folder / f"{direction}.jsonl").write_bytes("".join(lines).encode())
