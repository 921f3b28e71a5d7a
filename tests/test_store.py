import json
import pickle

import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from nmt.config import VocabConfig
from nmt.data import records
from nmt.data.clean import Reason
from nmt.data.records import ShardWriter, TokenPairs, decode_record, encode_record
from nmt.data.store import RowLengths, digests, is_prepared, load_stats, open_pairs, prepare, read_text
from nmt.data.vocab import learn
from nmt.data.vocabularies import Vocabularies
from nmt.errors import UserError
from nmt.languages import Direction

DE_EN, EN_DE = Direction("de", "en"), Direction("en", "de")
LENGTHS = RowLengths(12, 10)


class Numbers:
    """A vocabulary whose text is its ids."""

    size = 1000
    digest = "numbers"
    languages = ("de", "en")
    symbols = ()

    def tag(self, language):
        return {"de": 4, "en": 5}[language]

    def encode(self, texts):
        return [[int(word) for word in text.split()] for text in texts]


NUMBERS = Vocabularies.shared(Numbers())


def text(tokens, first=10):
    return " ".join(str(first + i) for i in range(tokens))


def tokens(store, split, direction):
    return [
        (pair.source.tolist(), pair.target.tolist()) for pair in open_pairs(store, split, direction, load_stats(store))
    ]


def prepare_some(store, pairs=None, vocabularies=None, **changes):
    arguments = {"digests": {"corpus": "c"}, "lengths": LENGTHS, **changes}
    pairs = pairs or {DE_EN: {"train": [("10 11", "12")], "dev": [("13", "14")], "test": [("15", "16 17")]}}
    return prepare(pairs, vocabularies or NUMBERS, store, **arguments)


# Records


def test_record_format():
    assert encode_record([1, 258], [3], 2) == bytes([1, 2, 0, 0, 2, 0, 0, 0, 1, 0, 2, 1, 3, 0])
    assert encode_record([], [70000], 4) == bytes([1, 4, 0, 0, 0, 0, 0, 0, 0x70, 0x11, 1, 0])
    with pytest.raises(OverflowError):
        encode_record([70000], [], 2)
    with pytest.raises(ValueError, match="unknown record format 9"):
        decode_record(bytes([9, 2, 0, 0, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match="unknown record format 1 with 3 bytes"):
        decode_record(bytes([1, 3, 0, 0, 0, 0, 0, 0]))


@given(st.data(), st.sampled_from([2, 4]))
def test_record_round_trip(data, token_bytes):
    ids = st.lists(st.integers(0, 2 ** (8 * token_bytes - token_bytes // 4) - 1), max_size=40)
    source, target = data.draw(ids), data.draw(ids)
    pair = decode_record(encode_record(source, target, token_bytes))
    assert (pair.source.tolist(), pair.target.tolist()) == (source, target)
    assert pair.source.dtype.itemsize == token_bytes


@pytest.fixture
def shards(tmp_path):
    writer = ShardWriter(epath.Path(tmp_path / "shards"), shard_pairs=4)
    for i in range(10):
        writer.write(encode_record([i], [i, i + 1], 2))
    writer.close()
    assert writer.counts == [4, 4, 2]
    return TokenPairs(tmp_path / "shards", writer.counts)


def test_random_access_over_several_shards(shards, tmp_path):
    assert len(shards) == 10
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == [
        f"0000{i}.{suffix}" for i in range(3) for suffix in ("array_record", "lengths.npy")
    ]
    order = [9, 0, 4, 3, 7, 8, 0]
    assert [pair.source.tolist() for pair in shards.__getitems__(order)] == [[i] for i in order]
    assert [shards[i].target.tolist() for i in range(10)] == [[i, i + 1] for i in range(10)]
    assert shards.__getitems__([]) == []
    for outside in (-1, 10):
        with pytest.raises(IndexError):
            shards[outside]


def test_reader_is_picklable_after_use(shards):
    assert shards[5].source.tolist() == [5]
    copy = pickle.loads(pickle.dumps(shards))
    assert copy[5].source.tolist() == [5]
    assert repr(copy) == repr(shards)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "overwritten"])
def test_damaged_shards_are_noticed(shards, tmp_path, damage):
    shard = tmp_path / "shards" / "00001.array_record"
    content = bytearray(shard.read_bytes())
    shard.unlink()
    if damage == "overwritten":
        place = content.index(encode_record([5], [5, 6], 2))
        content[place : place + 8] = b"garbage!"
    if damage != "missing":
        shard.write_bytes({"empty": b"", "cut": content[: len(content) // 2]}.get(damage, content))
    assert shards[0].source.tolist() == [0]
    with pytest.raises(UserError, match=r"00001\.array_record is damaged \(.*\); delete the prepared data"):
        shards[5]


def test_shards_for_remote_storage_are_written_here_and_copied(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(records, "is_remote", lambda path: True)
    make = records.ArrayRecordWriter
    monkeypatch.setattr(records, "ArrayRecordWriter", lambda path, *rest: opened.append(path) or make(path, *rest))
    writer = ShardWriter(epath.Path(tmp_path / "far"), shard_pairs=2)
    for i in range(3):
        writer.write(encode_record([i], [i], 2))
    writer.close()
    assert not any(path.startswith(str(tmp_path)) for path in opened)
    assert [pair.source.tolist() for pair in TokenPairs(tmp_path / "far", writer.counts)] == [[0], [1], [2]]


# The store


def test_prepared_tokens_are_those_of_the_vocabulary(tmp_path):
    pairs = {
        "train": [(f"das Haus {i} ist groß", f"the house {i} is large") for i in range(50)],
        "dev": [("das Haus ist klein", "the house is small")],
        "test": [("ein\u2028Haus\x85 „ganz“ \\ neu", 'a "new" house')],
    }
    learnt = [side for pair in pairs["train"] for side in pair] + ["The quick brown fox jumps over a lazy dog"]
    vocabulary = learn({"de": learnt}, ["de", "en"], VocabConfig(size=306), tmp_path / "vocab.model", seed=1)
    store = tmp_path / "data"
    stats = prepare(
        {DE_EN: pairs}, Vocabularies.shared(vocabulary), store, digests={}, lengths=RowLengths(64, 64), shard_pairs=20
    )
    for split in ("train", "dev"):
        sources, targets = (vocabulary.encode([pair[side] for pair in pairs[split]]) for side in (0, 1))
        assert tokens(store, split, DE_EN) == list(zip(sources, targets, strict=True))
        counted = stats.directions["de-en"].splits[split]
        assert (counted.source_tokens, counted.target_tokens) == (sum(map(len, sources)), sum(map(len, targets)))
    assert stats.directions["de-en"].splits["train"].shards == [20, 20, 10]
    assert stats.directions["de-en"].tag == vocabulary.tag("en")
    assert read_text(store, "dev", DE_EN) == pairs["dev"]
    assert read_text(store, "test", DE_EN) == pairs["test"]
    assert load_stats(store) == stats


def test_pairs_beyond_the_row_length_are_rejected_and_counted(tmp_path):
    fits, source_too_long, target_too_long = (text(10), text(9)), (text(11), text(1)), (text(1), text(10))
    pairs = {split: [source_too_long, fits, target_too_long] for split in ("train", "dev", "test")}
    stats = prepare_some(
        tmp_path / "data", {EN_DE: pairs}, rejected={EN_DE: {Reason.TOO_SHORT: 7}}, corpora=[{"name": "x"}]
    )
    counted = stats.directions["en-de"]
    assert counted.rejected == {"too_short": 7, "too_many_tokens": 4}
    for split in ("train", "dev"):
        assert tokens(tmp_path / "data", split, EN_DE) == [tuple(Numbers().encode(fits))]
        assert (counted.splits[split].pairs, counted.splits[split].source_tokens) == (1, 10)
    for split in ("dev", "test"):
        assert read_text(tmp_path / "data", split, EN_DE) == pairs[split]
    assert (counted.splits["test"].pairs, counted.splits["test"].target_tokens) == (3, 20)
    written = json.loads((tmp_path / "data" / "stats.json").read_text())
    assert written["corpora"] == [{"name": "x"}]
    assert written["directions"]["en-de"]["rejected"] == {"too_short": 7, "too_many_tokens": 4}
    assert written["lengths"] == [12, 10]


def test_large_vocabularies_get_four_bytes(tmp_path):
    class Large(Numbers):
        size = 65537

    pairs = {DE_EN: {"train": [("65536", "9")]}}
    prepare_some(tmp_path / "data", pairs, Vocabularies.shared(Large()))
    assert tokens(tmp_path / "data", "train", DE_EN) == [([65536], [9])]
    assert tokens(tmp_path / "data", "dev", DE_EN) == []
    assert read_text(tmp_path / "data", "test", DE_EN) == []


def test_progress_counts_every_pair(tmp_path):
    done = []
    pairs = {DE_EN: {"train": [("10", "11")] * 9000, "test": [("10", "11")]}}
    prepare_some(tmp_path / "data", pairs, progress=done.append)
    assert sum(done) == 9001
    assert len(done) == 3


def test_changed_inputs_are_named(tmp_path):
    class Others(Numbers):
        digest = "other numbers"

    store, others = tmp_path / "data", Others()
    before = digests("corpus 1", "strict", NUMBERS, LENGTHS, [DE_EN])
    assert not is_prepared(store, before)
    prepare_some(store, digests=before)
    assert is_prepared(store, before)
    for arguments, named in (
        (("corpus 2", "strict", NUMBERS, LENGTHS, [DE_EN]), "corpus"),
        (("corpus 1", "lax", NUMBERS, LENGTHS, [DE_EN]), "cleaning"),
        (("corpus 1", "strict", Vocabularies.shared(others), LENGTHS, [DE_EN]), "vocabulary"),
        (("corpus 1", "strict", Vocabularies(NUMBERS.source, others), LENGTHS, [DE_EN]), "target vocabulary"),
        (("corpus 1", "strict", NUMBERS, RowLengths(12, 11), [DE_EN]), "row lengths"),
        (("corpus 1", "strict", NUMBERS, LENGTHS, [DE_EN, EN_DE]), "directions"),
        (("corpus 2", "strict", Vocabularies.shared(others), LENGTHS, [DE_EN]), "corpus, vocabulary"),
    ):
        with pytest.raises(UserError, match=rf"data was prepared from another input \(changed: {named}\); delete"):
            is_prepared(store, digests(*arguments))
    assert is_prepared(store, digests("corpus 1", "strict", NUMBERS, LENGTHS, [DE_EN]))


def test_half_written_leftovers_are_cleaned(tmp_path):
    store = tmp_path / "data"
    prepare_some(store, {EN_DE: {"train": [("10", "11")] * 3}}, shard_pairs=1)
    (store / "stats.json").unlink()
    assert not is_prepared(store, {"corpus": "c"})
    with pytest.raises(UserError, match="no prepared data in"):
        load_stats(store)
    prepare_some(store)
    files = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
    shards = {
        f"{split}/de-en/00000.{suffix}" for split in ("dev", "train") for suffix in ("array_record", "lengths.npy")
    }
    assert files == {"stats.json", "dev/de-en.jsonl", "test/de-en.jsonl", *shards}


def test_failure_leaves_nothing_behind(tmp_path):
    def broken():
        yield ("10", "11")
        raise OSError("no room")

    store = tmp_path / "data"
    prepare_some(store)
    with pytest.raises(OSError, match="no room"):
        prepare_some(store, {DE_EN: {"train": broken()}})
    assert list(store.iterdir()) == []


def test_damaged_stats_and_missing_parts(tmp_path):
    store = tmp_path / "data"
    stats = prepare_some(store)
    with pytest.raises(UserError, match="no prepared data for en-de; there is de-en"):
        open_pairs(store, "train", EN_DE, stats)
    (store / "test" / "de-en.jsonl").unlink()
    with pytest.raises(UserError, match=r"cannot read .*de-en\.jsonl: No such file"):
        read_text(store, "test", DE_EN)
    for content in ("{", "{}", json.dumps({**json.loads((store / "stats.json").read_text()), "directions": 3})):
        (store / "stats.json").write_text(content)
        with pytest.raises(UserError, match=r"stats\.json is damaged or of another version; delete .*data"):
            load_stats(store)
