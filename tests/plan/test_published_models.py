"""The models of the papers: as many parameters as published, and recipes that train them as published."""

import csv
import functools
import re
import tempfile
from pathlib import Path

import pytest

from nmt.config import ModelConfig, Recipe, VocabularySizes, load_recipe
from nmt.files import declarations
from nmt.models.activations import is_gated
from nmt.recipes.size import ModelSize, measure

ROOT = Path(__file__).parents[2]
PUBLISHED = list(csv.DictReader((ROOT / "tests/golden/published_models.tsv").open(), delimiter="\t"))
NAMES = [row["model"] for row in PUBLISHED]
M4 = {
    "m4_600b": ("moe_2048e_36l", 2048),
    "m4_200b": ("moe_2048e_12l", 2048),
    "m4_150b": ("moe_512e_36l", 512),
    "m4_50b": ("moe_512e_12l", 512),
    "m4_37b": ("moe_128e_36l", 128),
    "m4_12b": ("moe_128e_12l", 128),
    "m4_1t": ("moe_2048e_60l", 2048),
    "m4_dense": ("dense_96l", 2048),
}


@functools.cache
def with_model(name: str) -> Recipe:
    """Return a recipe that says nothing of the vocabulary, so that its sizes are those of the model's file."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.yaml"
        plain.write_text("data: {corpora: [homeassistant], directions: [de-en]}\n")
        return load_recipe(str(plain), [f"model.base={name}", f"train.tokens_per_batch={1 << 20}"])


def vocabulary(row: dict[str, str]) -> VocabularySizes:
    return with_model(row["model"]).vocab.sizes


@functools.cache
def size_of(name: str) -> ModelSize:
    recipe = with_model(name)
    return measure(recipe, recipe.vocab.sizes)


def closed_form(model: ModelConfig, sizes: VocabularySizes, experts: int | None = None) -> int:
    """Count parameters by hand; `experts`: of a sparse layer, those that count (None: all)."""
    heads, bias, moe = model.heads * model.head_width, int(model.bias), model.moe
    inner = 2 if is_gated(model.activation) else 1
    norm = model.width * (2 if model.norm == "layernorm" else 1)
    attention = 4 * model.width * heads + bias * (3 * heads + model.width) + norm
    forward = (inner + 1) * model.width * model.hidden + bias * (inner * model.hidden + model.width)

    def stack(layers: int, attentions: int) -> int:
        sparse = 0 if moe is None else sum(layer % moe.every == moe.sparse_layer for layer in range(layers))
        total = layers * (attentions * attention + norm) + norm + (layers - sparse) * forward
        if moe is not None:
            total += sparse * (model.width * moe.experts + (moe.experts if experts is None else experts) * forward)
            total += sparse * (forward + norm) if moe.extra_dense else 0
        return total + (model.relative_buckets * model.heads if model.positions == "relative" else 0)

    separate = model.embeddings == "separate"
    tables = (sizes.source if separate else 0) + sizes.target * (1 if model.tie_output else 2)
    return stack(model.encoder_layers, 1) + stack(model.decoder_layers, 2) + tables * model.width


@pytest.mark.parametrize("row", PUBLISHED, ids=NAMES)
class TestAModel:
    def test_has_the_published_parameters_within_half_a_percent(self, row: dict[str, str]) -> None:
        found = size_of(row["model"]).parameters
        assert found == pytest.approx(float(row["parameters"]), rel=0.005)

    def test_has_as_many_as_a_count_by_hand_in_all_and_for_a_token(self, row: dict[str, str]) -> None:
        recipe = with_model(row["model"])
        found = size_of(row["model"])
        assert found.parameters == closed_form(recipe.model, vocabulary(row))
        used = None if recipe.model.moe is None else recipe.model.moe.top_k
        assert found.active == closed_form(recipe.model, vocabulary(row), used)

    def test_says_so_where_its_file_begins(self, row: dict[str, str]) -> None:
        head = (ROOT / "models" / f"{row['model']}.yaml").read_text().split("\n\n")[0]
        size = size_of(row["model"])
        numbers = re.search(r"Parameters: ([\d.,]+[MB])(?: in all, ([\d.,]+[MB]))?", head)
        assert numbers is not None
        assert numbers[1] == spelt(size.parameters)
        assert (numbers[2] or numbers[1]) == spelt(size.active)
        assert re.search(r"arXiv:\d{4}\.\d{5}", head)
        assert "Published:" in head


def spelt(count: int) -> str:
    return f"{count / 1e9:,.1f}B" if count >= 1e9 else f"{count / 1e6:.0f}M"


def test_every_model_of_the_papers_is_in_the_table() -> None:
    own = {"moe_8e_tiny"}
    assert set(declarations("models")) - own == set(NAMES)


@pytest.mark.parametrize("name", sorted(M4))
def test_a_recipe_of_the_paper_has_its_batch_and_gives_every_core_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M4_FILES", "/corpora/{source}-{target}.tsv")
    recipe = load_recipe(name)
    base, cores = M4[name]
    declared = with_model(base).model
    assert (recipe.model.encoder_layers, recipe.model.hidden) == (declared.encoder_layers, declared.hidden)
    assert recipe.train.tokens_per_batch == (4 if cores == 2048 else 1) << 20
    assert recipe.train.batch_tokens_of == "source"
    assert (recipe.vocab.size, recipe.vocab.target_size) == (64_000, 32_000)
    # A trillion tokens (section 4.2), in steps of 4 or 1 million.
    assert recipe.train.steps * recipe.train.tokens_per_batch == pytest.approx(1e12, rel=0.05)
    assert len(recipe.data.directions) == 100
    assert all(direction.endswith("-en") for direction in recipe.data.directions)
    if recipe.model.moe is not None:
        assert recipe.model.moe.experts == cores
        assert recipe.rows % cores == 0
        assert recipe.model.moe.group_size == recipe.train.tokens_per_batch // cores
