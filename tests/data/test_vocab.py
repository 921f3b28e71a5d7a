import pickle
import random
import unicodedata
from collections import Counter

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config import VocabConfig
from nmt.data.vocab import Vocabulary, learn, sample
from nmt.errors import UserError

TEXTS = {
    "de": [f"Das Haus Nummer {i} ist größer als {i * 7 % 97} Häuser" for i in range(200)],
    "en": [f"house number {i} is larger than {i * 3 % 89} houses >>de<< <s>" for i in range(80)],
    "zh-Hans": [f"第{i}号房子比{i * 5 % 83}号大" for i in range(40)],
}
LANGUAGES = ("de", "en", "zh-Hans", "fa")
CONFIG = VocabConfig(size=340)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "vocab" / "vocab.model"
    learn(TEXTS, LANGUAGES, CONFIG, path, seed=1)
    return path


@pytest.fixture(scope="module")
def vocabulary(path):
    return Vocabulary.load(path)


@pytest.fixture(scope="module")
def folding(tmp_path_factory):
    config = CONFIG.model_copy(update={"normalisation": "nfkc"})
    return learn(TEXTS, LANGUAGES, config, tmp_path_factory.mktemp("nfkc") / "vocab.model", seed=1)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    config = CONFIG.model_copy(update={"model_type": "bpe"})
    return learn(TEXTS, LANGUAGES, config, tmp_path_factory.mktemp("bpe") / "vocab.model", seed=1)


def round_trip(vocabulary, *texts):
    return vocabulary.decode(vocabulary.encode(texts))


def test_ids_are_laid_out_as_documented(vocabulary):
    assert (vocabulary.pad, vocabulary.begin, vocabulary.end, vocabulary.unk) == (0, 1, 2, 3)
    assert vocabulary.languages == LANGUAGES
    assert [vocabulary.tag(language) for language in LANGUAGES] == [4, 5, 6, 7]
    assert vocabulary.size == 340


def test_table_has_a_line_for_every_id(path, vocabulary):
    header, *lines = path.with_suffix(".tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    assert header.split("\t") == ["id", "piece", "score", "kind"]
    assert [int(row[0]) for row in rows] == list(range(vocabulary.size))
    assert [row[1] for row in rows[4:8]] == [f">>{language}<<" for language in LANGUAGES]
    assert Counter(row[3] for row in rows) == {"control": 8, "byte": 256, "piece": 340 - 264}
    assert sorted(p.name for p in path.parent.iterdir()) == ["vocab.model", "vocab.tsv"]


@pytest.mark.parametrize("literal", [">>de<<", "<s>", "</s>", "<pad>", "<unk>", "<0x41>", "▁>>en<<▁"])
def test_text_that_looks_like_a_symbol_stays_text(vocabulary, literal):
    (ids,) = vocabulary.encode([f"a {literal} b"])
    assert min(ids) >= 8
    assert vocabulary.decode([ids]) == [f"a {literal} b"]


SINCE_UNICODE_3 = st.characters(codec="utf-8", exclude_characters="▁").filter(
    lambda c: unicodedata.ucd_3_2_0.category(c) not in {"Cn", "Mn", "Mc", "Me"}
)


def without_marks(text):
    """Sequences of combining marks are left out: SentencePiece's table does not reorder them."""
    normal = unicodedata.normalize("NFKC", text)
    return not any(unicodedata.category(c).startswith("M") or "\u1100" <= c <= "\u11ff" for c in normal)


@given(st.text(SINCE_UNICODE_3).filter(without_marks))
def test_round_trip_is_nfkc_on_one_line_where_that_is_the_rule(folding, text):
    (ids,) = folding.encode([text])
    assert folding.unk not in ids
    assert folding.decode([ids]) == [" ".join(unicodedata.normalize("NFKC", text).split())]


ANY_TEXT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("▁▁\ufdd0\ufdd1\u2047\u2585 ")))


@given(ANY_TEXT, st.floats(0, 1), st.integers(0, 9))
def test_every_text_comes_back_as_it_was_on_one_line(vocabulary, bpe, text, dropout, seed):
    for one in (vocabulary, bpe):
        (ids,) = one.encode([text])
        assert one.unk not in ids
        assert one.decode([ids]) == [" ".join(text.split())]
    assert {vocabulary.decode([ids])[0] for ids, _ in vocabulary.best(text, 3)} == {" ".join(text.split())}
    assert bpe.decode([bpe.encode_with_dropout(text, dropout, np.random.default_rng(seed))]) == [" ".join(text.split())]


def test_every_character_comes_back(vocabulary, bpe):
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    words = [f"a{one}{one}b" for one in characters if not one.isspace()]
    lines = [" ".join(words[first : first + 64]) for first in range(0, len(words), 64)]
    for one in (vocabulary, bpe):
        assert one.decode(one.encode(lines)) == lines


def test_models_know_their_rule(vocabulary, folding):
    assert (vocabulary.normalisation, folding.normalisation) == ("identity", "nfkc")


@pytest.mark.parametrize(("model_type", "size"), [("unigram", 340), ("bpe", 400)])
def test_digits_are_pieces_of_their_own_where_asked_for(model_type, size, tmp_path):
    def digits(split):
        # Without pieces of several digits the text has fewer pieces in all.
        config = CONFIG.model_copy(
            update={"split_digits": split, "model_type": model_type, "size": 310 if split else size}
        )
        path = tmp_path / f"{split}.model"
        one = learn(TEXTS, LANGUAGES, config, path, seed=1)
        assert round_trip(one, "Haus 12345, ١٢٣") == ["Haus 12345, ١٢٣"]
        assert one.encode(["Haus 12345"]) == Vocabulary.load(path).encode(["Haus 12345"])
        rows = path.with_suffix(".tsv").read_text().splitlines()[1:]
        return {
            piece
            for _, piece, _, kind in (row.split("\t") for row in rows)
            if kind == "piece" and set(piece) & set("0123456789")
        }

    assert digits(True) == set("0123456789")
    assert any(len(piece.strip("▁")) > 1 for piece in digits(False))


@pytest.mark.parametrize("text", ["The dog", "(dog", "狗在睡觉", "5\u2581", "ünï 😀", ""])
def test_pieces_write_the_bytes_of_their_text(vocabulary, bpe, text):
    for model in (vocabulary, bpe):
        written = model.written_bytes()
        assert len(written) == model.size
        assert not any(written[: model.first_piece])
        assert b"".join(written[i] for i in model.encode([text])[0]) == (f" {text}" if text else "").encode()
        assert b"".join(written[i] for i in model.encode_inside(text)) == text.encode()


@given(st.lists(st.text(), max_size=5), st.integers(0, 80))
def test_every_text_gives_one_line(vocabulary, texts, copies):
    texts = texts + ["plain text"] * copies
    encoded = vocabulary.encode(texts)
    decoded = vocabulary.decode(encoded)
    assert len(encoded) == len(decoded) == len(texts)
    assert all(i >= 8 for ids in encoded for i in ids)
    assert all(len(line.splitlines()) <= 1 for line in decoded)
    assert encoded == [vocabulary.encode([text])[0] for text in texts]


def test_lone_surrogates_and_control_characters(vocabulary):
    assert round_trip(vocabulary, "a\ud800b", "a\x00b", "one\ntwo\r\n\u2028three\t") == [
        "a?b",
        "a\x00b",
        "one two three",
    ]


@given(st.lists(st.lists(st.integers(-3, 500)), max_size=4))
def test_any_ids_can_be_decoded(vocabulary, tokens):
    lines = vocabulary.decode(tokens)
    assert len(lines) == len(tokens)
    assert all("<0x" not in line and "<s>" not in line and len(line.splitlines()) <= 1 for line in lines)


def test_decoding_drops_specials_and_repairs_bytes(vocabulary):
    (ids,) = vocabulary.encode(["house number"])
    byte = {value: 8 + value for value in range(256)}
    surrounded = [4, 1, *ids[:1], 0, 3, *ids[1:], 2, 0, 9999]
    assert vocabulary.decode([surrounded]) == ["house number"]
    assert vocabulary.decode([[byte[0xC3], byte[0xB1]], [byte[0xC3]], [byte[0x0A]]]) == ["ñ", "\ufffd", ""]
    assert vocabulary.decode([]) == []
    assert vocabulary.decode([[]]) == [""]


def test_tag_of_an_unknown_language(vocabulary):
    with pytest.raises(UserError, match=r"does not know zh-Hant; did you mean zh-Hans\?; it knows de, en, zh-Hans, fa"):
        vocabulary.tag("zh-Hant")


def test_pickled_vocabulary_is_the_same(vocabulary):
    copy = pickle.loads(pickle.dumps(vocabulary))
    assert (copy.size, copy.languages, copy.digest) == (vocabulary.size, vocabulary.languages, vocabulary.digest)
    assert copy.encode(["Häuser"]) == vocabulary.encode(["Häuser"])


def test_learning_is_deterministic_and_silent(path, vocabulary, tmp_path, capfd):
    assert learn(TEXTS, LANGUAGES, CONFIG, tmp_path / "a.model", seed=1).digest == vocabulary.digest
    some = CONFIG.model_copy(update={"sentences": 100, "size": 330})
    digests = {learn(TEXTS, LANGUAGES, some, tmp_path / "b.model", seed=seed).digest for seed in (1, 2, 1)}
    assert len(digests) == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_too_large_a_vocabulary_names_the_greatest_size(tmp_path, capfd, model_type):
    def size(size):
        return CONFIG.model_copy(update={"size": size, "model_type": model_type})

    with pytest.raises(UserError, match=r"vocab.size=9000 is too large .* greatest possible size is \d+ ") as caught:
        learn(TEXTS, LANGUAGES, size(9000), tmp_path / "vocab.model", seed=1)
    greatest = int(str(caught.value).split("size is ")[1].split()[0])
    assert list(tmp_path.iterdir()) == []
    assert learn(TEXTS, LANGUAGES, size(greatest), tmp_path / "vocab.model", seed=1).size == greatest
    with pytest.raises(UserError, match="too large"):
        learn(TEXTS, LANGUAGES, size(greatest + 1), tmp_path / "vocab.model", seed=1)
    assert capfd.readouterr() == ("", "")


def test_too_small_a_vocabulary_says_what_it_must_hold(tmp_path):
    with pytest.raises(UserError, match=r"vocab.size=300 is too small: .* take 3\d\d"):
        learn(TEXTS, LANGUAGES, CONFIG.model_copy(update={"size": 300}), tmp_path / "vocab.model", seed=1)


@pytest.mark.parametrize("texts", [{}, {"de": []}, {"de": [" ", "\n"]}])
def test_no_text(tmp_path, texts):
    with pytest.raises(UserError, match="no text"):
        learn(texts, LANGUAGES, CONFIG, tmp_path / "vocab.model", seed=1)


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any),
    temperature=st.floats(0.5, 100),
    most=st.integers(1, 200),
    seed=st.integers(0, 9),
)
def test_sample_follows_the_temperature(sizes, temperature, most, seed):
    texts = {f"l{i}": [f"{i}:{j}" for j in range(size)] for i, size in enumerate(sizes)}
    config = VocabConfig(temperature=temperature, sentences=most)
    chosen = sample(texts, config, seed)
    total = min(most, sum(sizes))
    norm = sum(size ** (1 / temperature) for size in sizes if size)
    assert len(chosen) == total
    assert chosen == sample(texts, config, seed)
    for i, size in enumerate(sizes):
        counts = Counter(text for text in chosen if text.startswith(f"{i}:"))
        wanted = total * size ** (1 / temperature) / norm if size else 0
        assert abs(counts.total() - wanted) <= 1
        times = [counts[text] for text in texts[f"l{i}"]]
        assert not times or max(times) - min(times) <= 1


def test_missing_or_foreign_models(path, tmp_path):
    with pytest.raises(UserError, match=r"cannot read the vocabulary .*nowhere"):
        Vocabulary.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot read the vocabulary"):
        Vocabulary.load(tmp_path)
    model = path.read_bytes()
    foreign = tmp_path / "foreign"
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefgh", k=5)) for _ in range(300)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_prefix=str(foreign), vocab_size=50, minloglevel=2
    )
    damaged = [b"", b"no model", model[:-1], model[: len(model) // 2], foreign.with_suffix(".model").read_bytes()]
    for i, content in enumerate(damaged):
        file = tmp_path / f"{i}.model"
        file.write_bytes(content)
        with pytest.raises(UserError, match=rf"{i}\.model is damaged or not a vocabulary"):
            Vocabulary.load(file)
