"""Vocabularies that other programs learnt, with the tags and ids of this toolkit."""

import io

import pytest
import sentencepiece

from nmt.config import VocabConfig
from nmt.data.adoption import adopt
from nmt.data.vocab import SPECIALS, Vocabulary
from nmt.data.vocabularies import Vocabularies
from nmt.errors import UserError

TEXTS = [
    f"{word} {other} and {number}" for word in ("house", "mouse", "tree") for other in "abcd" for number in range(9)
]
LATER = ["a tree and a house", "  mouse   7 ", "ein Baum", "日本", "", ">>de<< <s> house"]


def plain(**options):
    """The bytes of a model as SentencePiece makes it by default, with unknown, begin and end as 0, 1 and 2."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        **{"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2} | options,
    )
    return model.getvalue()


KINDS = {
    "unigram": {},
    "bpe": {"model_type": "bpe"},
    "bytes": {"byte_fallback": True, "vocab_size": 310},
    "symbols": {"user_defined_symbols": ["<sep>"], "control_symbols": ["<old>", ">>fr<<"], "pad_id": 3},
}


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return plain(**KINDS[request.param])


def test_texts_have_the_pieces_that_they_had(model):
    before = sentencepiece.SentencePieceProcessor(model_proto=model)
    after = Vocabulary(adopt(model, "x", ["de", "en"], ["<bt>"]))
    assert (after.languages, after.symbols, after.tag("en")) == (("de", "en"), ("<bt>",), SPECIALS + 1)
    new = after._processor
    known = 0
    for text in (*LATER, *TEXTS):
        ids = after.encode([text])[0]
        assert min(ids, default=after.first_piece) >= after.first_piece
        old = before.encode(" ".join(text.split()))
        if before.unk_id() not in old:
            known += 1
            assert [new.id_to_piece(i) for i in ids] == [before.id_to_piece(i) for i in old]
        assert after.decode([ids]) == [" ".join(text.split())]  # what was unknown is spelt in bytes
    assert known >= len(TEXTS)


def test_a_vocabulary_of_the_toolkit_stays_as_it_is(model):
    once = adopt(model, "x", ["de", "en"])
    assert adopt(once, "x", ["de"]) is once
    assert adopt(once, "x", []) is once


def test_it_is_given_to_a_run_with_its_new_size(model, tmp_path):
    (tmp_path / "plain.model").write_bytes(model)
    config = VocabConfig(size=300, model=str(tmp_path / "plain.model"))
    with pytest.raises(
        UserError, match=r"vocab.size=300, but .*plain\.model has (\d+) pieces: set vocab\.size="
    ) as told:
        Vocabularies.adopt(tmp_path / "vocab", config, ["de", "en"])
    size = int(str(told.value).rpartition("vocab.size=")[2].partition(",")[0])
    config = config.model_copy(update={"size": size})
    given = Vocabularies.adopt(tmp_path / "vocab", config, ["de", "en"])
    assert Vocabularies.load(tmp_path / "vocab", config).digests == given.digests
    assert given.source.languages == ("de", "en")


@pytest.mark.parametrize("content", [b"", b"text", b"\x0a\xff\xff\xff"])
def test_what_is_no_model_is_a_mistake(content):
    with pytest.raises(UserError, match=r"^x\.model is no SentencePiece model$"):
        adopt(content, "x.model", ["de"])
