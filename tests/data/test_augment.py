import json
from collections import Counter

import numpy as np
import pytest

from nmt.config import DataConfig, VocabConfig
from nmt.config.schema_augment import AugmentConfig
from nmt.data.augment import Augmenter, segment
from nmt.data.pipeline import train_batches
from nmt.data.store import RowLengths, prepare
from nmt.data.vocab import learn
from nmt.data.vocabularies import Vocabularies
from nmt.languages import Direction
from nmt.sharding.hosts import HostShard

DE_EN = Direction("de", "en")
SYLLABLES = ["light", "house", "keep", "er", "wan", "der", "to", "ward", "an", "oth", "sing", "ing", "qui", "et", "har"]
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES[3:9] for c in SYLLABLES[6:12]]
TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, 6, replace=False)) for i in range(120)]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def vocabulary(request, tmp_path_factory):
    config = VocabConfig(size=330, model_type=request.param)
    return learn({"de": TEXTS}, ["de", "en"], config, tmp_path_factory.mktemp("vocab") / "vocab.model", 1)


def test_no_strength_is_the_best_segmentation(vocabulary):
    rng = np.random.default_rng(1)
    assert all(segment(vocabulary, text, 0.0, rng) == vocabulary.encode([text])[0] for text in TEXTS)
    if vocabulary.merges:
        assert all(vocabulary.encode_with_dropout(t, 0.0, rng) == vocabulary.encode([t])[0] for t in [*TEXTS, "", "Ü☃"])
    else:
        assert all(vocabulary.best(text, 4)[0][0] == vocabulary.encode([text])[0] for text in TEXTS)


def test_drawn_segmentations_differ_and_spell_the_same_text(vocabulary):
    rng = np.random.default_rng(1)
    drawn = [tuple(segment(vocabulary, TEXTS[0], 0.3, rng)) for _ in range(30)]
    assert len(set(drawn)) > 3
    assert set(vocabulary.decode(drawn)) == {TEXTS[0]}


def test_unigram_segmentations_follow_their_probabilities(vocabulary):
    if vocabulary.merges:
        return
    text, alpha, draws = "lighthouse", 0.5, 4000
    candidates = vocabulary.best(text, 16)
    weights = np.exp(alpha * np.array([score for _, score in candidates]))
    rng = np.random.default_rng(2)
    counts = Counter(tuple(segment(vocabulary, text, alpha, rng)) for _ in range(draws))
    wanted = draws * weights / weights.sum()
    found = np.array([counts[tuple(ids)] for ids, _ in candidates])
    assert ((found - wanted) ** 2 / wanted).sum() < 45  # 15 degrees of freedom, probability 0.0001


def test_changes_depend_on_seed_stream_and_occurrence_alone(vocabulary):
    config = AugmentConfig(subword=0.3, drop=0.2, swap=0.2)
    ids, most = vocabulary.encode(TEXTS[:1])[0], RowLengths(200, 200)
    both = Vocabularies.shared(vocabulary)

    def changed(seed, stream, occurrence):
        return Augmenter(both, config, seed).change(stream, occurrence, ids, ids, most)

    assert changed(1, 0, 5) == changed(1, 0, 5)
    assert len({json.dumps(changed(*key)) for key in ((1, 0, 5), (2, 0, 5), (1, 1, 5), (1, 0, 6))}) == 4


def test_case_and_noise(vocabulary):
    both, most = Vocabularies.shared(vocabulary), RowLengths(500, 500)
    ids = vocabulary.encode(TEXTS[:1])[0]

    def texts(**config):
        augmenter = Augmenter(both, AugmentConfig(**config), 1)
        pairs = [augmenter.change(0, i, ids, ids, most) for i in range(300)]
        return [vocabulary.decode(pair) for pair in pairs]

    upper = texts(upper=0.3)
    share = np.mean([pair == [TEXTS[0].upper()] * 2 for pair in upper])
    assert share == pytest.approx(0.3, abs=0.1)
    assert all(pair in ([TEXTS[0].upper()] * 2, [TEXTS[0]] * 2) for pair in upper)
    dropped = texts(drop=0.2)
    assert all(target == TEXTS[0] for _, target in dropped)
    assert np.mean([len(source.split()) for source, _ in dropped]) == pytest.approx(4.8, abs=0.25)
    swapped = texts(swap=0.5)
    assert all(sorted(source.split()) == sorted(TEXTS[0].split()) for source, _ in swapped)
    assert any(source != TEXTS[0] for source, _ in swapped)


def test_what_would_not_fit_stays_as_it_is(vocabulary):
    ids = vocabulary.encode(TEXTS[:1])[0]
    augmenter = Augmenter(Vocabularies.shared(vocabulary), AugmentConfig(upper=0.999), 1)
    assert augmenter.change(0, 0, ids, ids, RowLengths(len(ids), len(ids))) == (ids, ids)


def test_an_augmented_stream_resumes_and_is_shared_exactly(vocabulary, tmp_path):
    both = Vocabularies.shared(vocabulary)
    prepare({DE_EN: {"train": [(t, t) for t in TEXTS]}}, both, tmp_path, lengths=RowLengths(64, 64))
    augment = AugmentConfig(subword=0.2, upper=0.1, drop=0.1)
    data = DataConfig(corpora=("x",), directions=("de-en",), augment=augment)

    def batches(count, state=None, host=0, hosts=1):
        iterator = train_batches(tmp_path, [DE_EN], data, 16, 1, HostShard(host, hosts), both)
        if state:
            iterator.set_state(state)
        found = [next(iterator) for _ in range(count)]
        state = json.loads(json.dumps(iterator.get_state()))
        iterator.close()
        return found, state

    whole, _ = batches(20)
    first, state = batches(9)
    rest, _ = batches(11, state)
    shares = [batches(20, host=host, hosts=2)[0] for host in range(2)]
    for number, batch in enumerate(whole):
        assert np.array_equal(batch.src, [*first, *rest][number].src)
        assert np.array_equal(batch.tgt_out, np.concatenate([share[number].tgt_out for share in shares]))
    assert max(np.mean([b.src_segment > 0 for b in whole]), np.mean([b.tgt_segment > 0 for b in whole])) > 0.8
    assert (whole[0].tgt_segment > 0).any()
