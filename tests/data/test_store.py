import json
import pickle
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config import VocabConfig
from nmt.corpora.clean import Reason
from nmt.data import records
from nmt.data.records import ShardWriter, TokenPairs
from nmt.data.store import RowLengths, StoreOrigin, digests, is_prepared, load_stats, open_pairs, prepare, read_text
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
    arguments = {"lengths": LENGTHS, "origin": StoreOrigin({"corpus": "c"}), **changes}
    pairs = pairs or {DE_EN: {"train": [("10 11", "12")], "dev": [("13", "14")], "test": [("15", "16 17")]}}
    return prepare(pairs, vocabularies or NUMBERS, store, **arguments)


# Shards


def read_slowly(folder, shard):
    """Read a shard one word at a time, as the format says, and check its check words."""
    words, bounds = (np.load(folder / f"{shard:05d}.{name}.npy").tolist() for name in ("tokens", "bounds"))
    pairs = []
    for i in range(len(bounds) // 2):
        source, target, end = bounds[2 * i : 2 * i + 3]
        assert sum(words[source:end]) % 2**16 == 0x5A5A
        pairs.append((words[source:target], words[target : end - 1]))
    assert bounds[-1] == len(words)
    return pairs


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([2, 4]), st.integers(1, 9))
def test_shards_hold_what_was_written_and_are_read_in_any_order(data, token_bytes, shard_pairs):
    ids = st.lists(st.integers(0, 2**16 - 1 if token_bytes == 2 else 2**31 - 1), max_size=12)
    pairs = data.draw(st.lists(st.tuples(ids, ids), max_size=25))
    with tempfile.TemporaryDirectory() as name:
        folder = epath.Path(name)
        writer, left = ShardWriter(folder, shard_pairs, token_bytes), list(pairs)
        while left:
            count = data.draw(st.integers(1, len(left)))
            writer.write([s for s, _ in left[:count]], [t for _, t in left[:count]])
            left = left[count:]
        writer.close()
        assert sum(writer.counts) == len(pairs)
        assert all(count == shard_pairs for count in writer.counts[:-1])
        if token_bytes == 2:
            assert [pair for shard in range(len(writer.counts)) for pair in read_slowly(folder, shard)] == pairs
        shards = TokenPairs(folder, writer.counts)
        order = data.draw(st.lists(st.integers(0, len(pairs) - 1), max_size=40)) if pairs else []
        found = shards.__getitems__(order)
        assert [(pair.source.tolist(), pair.target.tolist()) for pair in found] == [pairs[i] for i in order]
        assert all(side.dtype.itemsize == token_bytes for pair in found for side in pair)
        lengths = shards.locate(np.array(order, np.int64)).lengths
        assert lengths.tolist() == [[len(pairs[i][0]), len(pairs[i][1])] for i in order]


@pytest.mark.parametrize(("token_bytes", "wrong"), [(2, 70000), (2, -1), (4, 2**31)])
def test_ids_that_do_not_fit(tmp_path, token_bytes, wrong):
    writer = ShardWriter(epath.Path(tmp_path / "x"), 4, token_bytes)
    with pytest.raises(OverflowError, match=f"{wrong}.* do not fit {token_bytes} bytes"):
        writer.write([[5]], [[5, wrong]])


@pytest.fixture
def shards(tmp_path):
    writer = ShardWriter(epath.Path(tmp_path / "shards"), 4, 2)
    writer.write([[i] for i in range(10)], [[i, i + 1] for i in range(10)])
    writer.close()
    assert writer.counts == [4, 4, 2]
    return TokenPairs(tmp_path / "shards", writer.counts)


def test_random_access_over_several_shards(shards, tmp_path):
    assert len(shards) == 10
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == [
        f"0000{i}.{name}.npy" for i in range(3) for name in ("bounds", "tokens")
    ]
    order = [9, 0, 4, 3, 7, 8, 0]
    assert [pair.source.tolist() for pair in shards.__getitems__(order)] == [[i] for i in order]
    assert [shards[i].target.tolist() for i in range(10)] == [[i, i + 1] for i in range(10)]
    assert shards.__getitems__([]) == []
    for outside in (-1, 10):
        with pytest.raises(IndexError):
            shards[outside]


def test_folders_are_joined(shards, tmp_path):
    writer = ShardWriter(epath.Path(tmp_path / "other"), 4, 2)
    writer.write([[7]], [[8]])
    writer.close()
    other, empty = TokenPairs(tmp_path / "other", [1]), TokenPairs(tmp_path / "nothing", [])
    joined = TokenPairs.joined([shards, empty, other, shards])
    assert len(joined) == 21
    assert [joined[i].target.tolist() for i in (9, 10, 11)] == [[9, 10], [8], [0, 1]]


def test_a_shard_ends_where_its_offsets_would_be_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_MOST_WORDS", 9)
    writer = ShardWriter(epath.Path(tmp_path), 100, 2)
    for i in range(4):
        writer.write([[i]], [[i, i]])
    writer.close()
    assert writer.counts == [2, 2]
    assert [pair.target.tolist() for pair in TokenPairs(tmp_path, writer.counts)] == [[i, i] for i in range(4)]


def test_reader_is_picklable_after_use(shards):
    assert shards[5].source.tolist() == [5]
    copy = pickle.loads(pickle.dumps(shards))
    assert copy[5].source.tolist() == [5]
    assert repr(copy) == repr(shards)


@pytest.mark.parametrize("file", ["tokens", "bounds"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "overwritten", "zeroed", "foreign", "other"])
def test_damaged_shards_are_noticed(shards, tmp_path, damage, file):
    shard = tmp_path / "shards" / f"00001.{file}.npy"
    content = shard.read_bytes()
    shard.unlink()
    pair = 2 * 4 if file == "tokens" else 4 * 2  # bytes of a pair, behind the header
    place = len(content) - (3 * pair if file == "tokens" else 3 * pair + 4)
    damaged = {
        "empty": b"",
        "cut": content[: len(content) - 6],
        "overwritten": content[:place] + b"garbage!" + content[place + 8 :],
        "zeroed": content[:place] + bytes(8) + content[place + 8 :],
        "foreign": b"PK" + content[2:],
        "other": (tmp_path / "shards" / f"00002.{file}.npy").read_bytes(),
    }
    if damage != "missing":
        shard.write_bytes(damaged[damage])
    assert shards[0].source.tolist() == [0]
    with pytest.raises(UserError, match=r"00001\.(tokens|bounds)\.npy is damaged \(.*\); delete the prepared data"):
        shards[5]


def test_shards_for_remote_storage_are_written_here_and_copied(tmp_path, monkeypatch):
    folder = epath.Path(tmp_path / "far")
    monkeypatch.setattr(records, "is_remote", lambda path: True)
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    writer = ShardWriter(folder, 2, 2)
    writer.write([[0]], [[0]])
    assert list(folder.iterdir()) == []
    writer.write([[1], [2]], [[1], [2]])
    assert len(list(folder.iterdir())) == 2  # the first shard, which is full
    writer.close()
    assert len(list(folder.iterdir())) == 4
    assert [pair.source.tolist() for pair in TokenPairs(folder, writer.counts)] == [[0], [1], [2]]


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
    stats = prepare({DE_EN: pairs}, Vocabularies.shared(vocabulary), store, lengths=RowLengths(64, 64), shard_pairs=20)
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
        tmp_path / "data", {EN_DE: pairs}, origin=StoreOrigin({}, {EN_DE: {Reason.TOO_SHORT: 7}}, [{"name": "x"}])
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
    assert stats.describe_too_long() == (
        "; 4 of 6 pairs are left out, since they are longer than data.source_length=12 or data.target_length=10 tokens"
    )


def test_named_test_sets_are_recorded(tmp_path):
    used = [{"file": "devtest/deu_Latn.devtest", "texts": 1012, "removed": 3}]
    prepare_some(tmp_path / "data", origin=StoreOrigin({"corpus": "c"}, test_sets=used))
    assert json.loads((tmp_path / "data" / "stats.json").read_text())["test_sets"] == used
    assert load_stats(tmp_path / "data").test_sets == used
    prepare_some(tmp_path / "none")
    assert load_stats(tmp_path / "none").test_sets == []


def test_nothing_is_said_of_length_where_all_pairs_fit(tmp_path):
    stats = prepare_some(
        tmp_path / "data", {EN_DE: {split: [(text(3), text(3))] for split in ("train", "dev", "test")}}
    )
    assert stats.describe_too_long() == ""


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
    prepare_some(store, origin=StoreOrigin(before))
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
    shards = {f"{split}/de-en/00000.{suffix}" for split in ("dev", "train") for suffix in ("bounds.npy", "tokens.npy")}
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


def test_a_store_of_another_format_is_counted_but_not_read(tmp_path):
    store = tmp_path / "data"
    prepare_some(store)
    written = json.loads((store / "stats.json").read_text())
    (store / "stats.json").write_text(json.dumps({**written, "format": 1}))
    stats = load_stats(store)
    assert stats.directions["de-en"].splits["train"].pairs == 1
    assert read_text(store, "test", DE_EN) == [("15", "16 17")]
    message = r"data was prepared by another version \(format 1 of the store, not 2\); delete that folder"
    with pytest.raises(UserError, match=message):
        is_prepared(store, {"corpus": "c"})
    with pytest.raises(UserError, match=message):
        open_pairs(store, "train", DE_EN, stats)


def test_more_shards_than_files_that_may_be_open(tmp_path):
    """In a process of its own, since it lowers the limit."""
    prepare_some(tmp_path, {DE_EN: {"train": [(str(10 + i), "12") for i in range(120)]}}, shard_pairs=1)
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from nmt.config import DataConfig
from nmt.data.pipeline import train_batches
from nmt.languages import Direction
data = DataConfig(corpora=("x",), directions=("de-en",), source_length=12, target_length=10)
print(next(train_batches({str(tmp_path)!r}, [Direction("de", "en")], data, 64, 1)).src.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "(64, 12)\n"
