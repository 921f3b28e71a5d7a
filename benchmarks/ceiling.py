"""The scores of a perfect system, language by language, with vocabularies of several rules of normalisation.

References are encoded and decoded by a vocabulary of the recipe's size, learnt from its training text, and scored as if
a model had translated them: no model with this vocabulary can score more. Beside the rules stand the tokens that each
needs, and the characters that come back as others.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nmt.config import Recipe, load_recipe
from nmt.corpora import Corpus, load_pairs
from nmt.corpora.cleaned.texts import training_texts
from nmt.data.round_trip import name_character, round_trip
from nmt.data.vocab import Vocabulary, learn
from nmt.evaluate.metrics import score
from nmt.languages import Direction, parse_directions
from nmt.recipes.stages import recipe_languages
from nmt.recipes.terminal import TerminalProgress

# Texts that count for BLEU and chrF++: sacreBLEU takes minutes for more.
_MOST = 2000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mix100")
    parser.add_argument("--rules", nargs="+", default=["identity", "nfkc"], help="rules of vocab.normalisation")
    parser.add_argument("--split", choices=("test", "dev"), default="test")
    parser.add_argument("--json", type=Path, help="keep every figure here")
    parser.add_argument("keys", nargs="*", help="keys of the recipe, such as data.directions=de-en,en-de")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.keys)
    data = recipe.data
    corpus = load_pairs(data.corpora, parse_directions(data.directions), data.clean, TerminalProgress())
    held_out = _held_out_texts(corpus, arguments.split)
    results: dict[str, dict[str, Any]] = {code: {"lines": len(texts)} for code, texts in held_out.items()}
    for rule in arguments.rules:
        vocabulary = _learnt(recipe, corpus, rule)
        print(f"learnt a vocabulary of {vocabulary.size:,} pieces with {rule}", flush=True)
        for code, texts in held_out.items():
            results[code][rule] = measure_ceiling(vocabulary, code, texts)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(table_lines(results, arguments.rules)))


def _held_out_texts(corpus: Corpus, split: Any) -> dict[str, list[str]]:
    """Return at most 2000 distinct held-out texts of every language that is a target."""
    found: dict[str, dict[str, None]] = {}
    for direction, splits in corpus.pairs.items():
        texts = found.setdefault(direction.target, {})
        for _, target in splits[split]:
            if len(texts) == _MOST:
                break
            texts[target] = None
    return {code: list(texts) for code, texts in sorted(found.items()) if texts}


def _learnt(recipe: Recipe, corpus: Corpus, rule: str) -> Vocabulary:
    config = recipe.vocab.model_copy(update={"normalisation": rule})
    with TemporaryDirectory() as folder:
        texts = training_texts(corpus, (0, 1))
        return learn(texts, recipe_languages(recipe), config, Path(folder) / "vocab.model", recipe.seed)


def measure_ceiling(vocabulary: Vocabulary, language: str, references: list[str]) -> dict[str, Any]:
    """Return the scores of references that went through a vocabulary, its tokens, and what it changed."""
    encoded = vocabulary.encode(references)
    cell = score(
        Direction("en" if language != "en" else "de", language), references, vocabulary.decode(encoded), references
    )
    back = round_trip(vocabulary, references, encoded)
    return {
        "bleu": cell.bleu,
        "chrf": cell.chrf,
        "tokens": sum(map(len, encoded)),
        "changed": back.changed,
        "lost": {name_character(one): count for one, count in list(back.lost.items())[:5]},
    }


def table_lines(results: Mapping[str, Mapping[str, Any]], rules: Iterable[str]) -> list[str]:
    """Return a Markdown table: a row a language, those that lose most first, and below it the sums of each rule."""
    rules = list(rules)
    titles = [
        "language",
        "lines",
        *(f"{rule}: BLEU | chrF++ | lines changed" for rule in rules),
        "lost, most frequent first",
    ]
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (1 + 3 * len(rules)) + "---|"]
    for code, row in sorted(results.items(), key=lambda item: min(item[1][rule]["chrf"] for rule in rules)):
        figures = [
            f"{row[rule]['bleu']:.1f} | {row[rule]['chrf']:.1f} | {row[rule]['changed'] / row['lines']:.1%}"
            for rule in rules
        ]
        lost = ", ".join(row[rules[-1]]["lost"])
        lines.append(f"| {code} | {row['lines']:,} | {' | '.join(figures)} | {lost} |")
    for rule in rules:
        tokens = sum(row[rule]["tokens"] for row in results.values())
        whole = sum(row[rule]["bleu"] > 99.999 and row[rule]["chrf"] > 99.999 for row in results.values())
        lines.append(f"{rule}: {tokens:,} tokens; a ceiling of 100.0 in {whole} of {len(results)} languages")
    return lines


if __name__ == "__main__":
    main()
