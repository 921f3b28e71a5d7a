import itertools
import json
import threading
from collections import Counter

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config import DataConfig
from nmt.data import pipeline
from nmt.data.batch import Batch
from nmt.data.mixture import mixing_table, probabilities
from nmt.data.packing import Example, Packer, assemble
from nmt.data.pipeline import dev_batches, mixed_references, train_batches
from nmt.data.records import TokenPair
from nmt.data.store import RowLengths, load_stats, prepare
from nmt.data.vocabularies import Vocabularies
from nmt.errors import UserError
from nmt.languages import Direction

DIRECTIONS = [Direction(*name.split("-")) for name in ("de-en", "en-de", "es-en", "en-es")]
TAGS = {"de": 4, "en": 5, "es": 6}
TRAIN = dict(zip(DIRECTIONS, (400, 400, 37, 0), strict=True))
DEV = dict(zip(DIRECTIONS, (90, 90, 3, 0), strict=True))
DATA = DataConfig(corpora=("x",), directions=tuple(map(str, DIRECTIONS)), shuffle_window=256)
FIELDS = tuple(Batch.__dataclass_fields__)


class Numbers:
    """A vocabulary whose text is its ids."""

    size = 1 << 15
    digest = "numbers"

    def tag(self, language):
        return TAGS[language]

    def encode(self, texts):
        return [[int(word) for word in text.split()] for text in texts]


def pair_of(direction, record, split="train"):
    """A pair that tells its direction, record and split, of up to 27 pieces a side."""
    rng = np.random.default_rng([DIRECTIONS.index(direction), record, split == "dev"])
    name = [100 + DIRECTIONS.index(direction), 1000 + record, 200 + (split == "dev")]
    return tuple(tuple(name + [int(x) for x in rng.integers(10, 99, rng.integers(0, 25))]) for _ in range(2))


def as_text(pair):
    return tuple(" ".join(map(str, side)) for side in pair)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "data"
    pairs = {
        direction: {
            split: [as_text(pair_of(direction, record, split)) for record in range(sizes[direction])]
            for split, sizes in (("train", TRAIN), ("dev", DEV))
        }
        for direction in DIRECTIONS
    }
    prepare(pairs, Vocabularies.shared(Numbers()), directory, digests={}, lengths=RowLengths(64, 64), shard_pairs=150)
    return directory


def arrays(batch):
    return {field: getattr(batch, field) for field in FIELDS}


def same(left, right):
    return all(np.array_equal(getattr(left, field), getattr(right, field)) for field in FIELDS)


def unpacked(batch, rows, lengths=(64, 64)):
    """Read a batch back, slot by slot, and check everything that the contract says about it."""
    for field, array in arrays(batch).items():
        assert array.dtype == np.int32, field
        assert array.shape == (rows, lengths[0] if field.startswith("src") else lengths[1]), field
    pairs = []
    for r in range(rows):
        row = {field: array[r].tolist() for field, array in arrays(batch).items()}
        for side in ("src", "tgt"):
            segments = row[f"{side}_segment"]
            used = sum(segment > 0 for segment in segments)
            assert segments[:used] == sorted(segments[:used])
            assert not any(any(values[used:]) for field, values in row.items() if field.startswith(side))
        assert not any(row["direction"][sum(segment > 0 for segment in row["tgt_segment"]) :])
        count = max(row["src_segment"])
        assert set(row["src_segment"]) - {0} == set(row["tgt_segment"]) - {0} == set(range(1, count + 1))
        for segment in range(1, count + 1):
            at = {side: [i for i, s in enumerate(row[f"{side}_segment"]) if s == segment] for side in ("src", "tgt")}
            for side, places in at.items():
                assert [row[f"{side}_position"][i] for i in places] == list(range(len(places)))
            (direction,) = {row["direction"][i] for i in at["tgt"]}
            tag, *source, end = (row["src"][i] for i in at["src"])
            begin, *given = (row["tgt_in"][i] for i in at["tgt"])
            *wanted, last = (row["tgt_out"][i] for i in at["tgt"])
            assert (tag, end, begin, last) == (TAGS[DIRECTIONS[direction].target], 2, 1, 2)
            assert given == wanted
            pairs.append((direction, tuple(source), tuple(wanted)))
    return pairs


def expected(references, split="train"):
    return Counter((d, *pair_of(DIRECTIONS[d], record, split)) for d, record in references)


def take(iterator, count):
    return list(itertools.islice(iterator, count))


# Packing


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 5)), max_size=30), st.integers(1, 6))
def test_packed_rows_hold_what_was_put_in(shapes, rows):
    lengths = RowLengths(9, 8)
    packer = Packer(rows, lengths)
    put = []
    for i, (direction, source, target) in enumerate(shapes):
        example = Example(direction, TokenPair(np.full(source, 50 + i, np.uint16), np.full(target, 90 + i, np.uint16)))
        if not packer.add(example):
            sizes = [
                (sum(len(e.pair.source) + 2 for e in row), sum(len(e.pair.target) + 1 for e in row))
                for row in packer.rows
            ]
            assert all(s + source + 2 > 9 or t + target + 1 > 8 for s, t in sizes)
            break
        put.append((direction, (50 + i,) * source, (90 + i,) * target))
    batch = assemble(packer.rows, lengths, [TAGS[direction.target] for direction in DIRECTIONS])
    assert Counter(unpacked(batch, rows, lengths)) == Counter(put)


def test_a_pair_longer_than_a_row_is_an_error():
    packer = Packer(2, RowLengths(9, 8))
    with pytest.raises(ValueError, match="a pair of 10 and 1 tokens does not fit"):
        packer.add(Example(0, TokenPair(np.zeros(8, np.uint16), np.zeros(0, np.uint16))))


def test_rows_are_well_filled(tmp_path):
    rng = np.random.default_rng(1)
    sides = [[" ".join(["50"] * n) for n in np.clip(rng.poisson(15, 2000), 3, 60)] for _ in range(2)]
    pairs = {DIRECTIONS[0]: {"train": list(zip(*sides, strict=True))}}
    prepare(pairs, Vocabularies.shared(Numbers()), tmp_path, digests={}, lengths=RowLengths(64, 64))
    iterator = train_batches(tmp_path, DIRECTIONS[:1], DATA, rows=16, seed=1)
    batches = take(iterator, 32)
    iterator.close()
    fill = [
        np.mean([batch.src_segment > 0 for batch in batches]),
        np.mean([batch.tgt_segment > 0 for batch in batches]),
    ]
    assert max(fill) > 0.9


# The training stream


def test_batches_hold_exactly_the_stream_of_references(store):
    iterator = train_batches(store, DIRECTIONS, DATA, rows=8, seed=3)
    references = mixed_references(TRAIN, DATA, 3)
    seen = Counter()
    for batch in take(iterator, 64):  # 64 batches of 8 rows are two blocks
        seen.update(unpacked(batch, 8))
    iterator.close()
    assert seen == expected(references[i] for i in range(seen.total()))


def test_batches_of_a_block_are_alike(store, monkeypatch):
    """The first batch must not be the one of the first references, whose rows are the fullest."""
    monkeypatch.setattr(pipeline, "_OPEN_ROWS", 48)
    direction = DIRECTIONS[0]
    references = mixed_references({direction: 400}, DATA, 1)
    place = {pair_of(direction, references[i].record): i for i in range(256)}
    iterator = train_batches(store, [direction], DATA, rows=16, seed=1)
    places = [[place[tuple(pair)] for _, *pair in unpacked(batch, 16)] for batch in take(iterator, 3)]
    iterator.close()
    used = sum(map(len, places))
    assert sorted(itertools.chain(*places)) == list(range(used))
    assert all(abs(np.mean(some) / used - 0.5) < 0.15 for some in places)


@pytest.mark.parametrize("window", [1, 64, 256])
def test_every_pair_once_per_epoch(window):
    data = DATA.model_copy(update={"shuffle_window": window})
    references = mixed_references({**TRAIN, DIRECTIONS[3]: 1}, data, 5)
    counts = Counter(references[i] for i in range(256 * 12))
    for index, size in enumerate((400, 400, 37, 1)):
        drawn = sum(count for reference, count in counts.items() if reference.direction == index)
        times = [counts[index, record] for record in range(size)]
        assert drawn == sum(times) > size
        assert set(times) <= {drawn // size, -(-drawn // size)}


def order(direction, epoch, seed=1, size=400):
    data = DATA.model_copy(update={"shuffle_window": 1})
    references = mixed_references({direction: size}, data, seed)
    return [references[i].record for i in range(epoch * size, (epoch + 1) * size)]


@pytest.mark.parametrize("largest_block", [1 << 16, 0])
def test_every_epoch_direction_and_seed_has_its_own_order(monkeypatch, largest_block):
    monkeypatch.setattr(pipeline, "_LARGEST_BLOCK", largest_block)
    orders = [order(direction, epoch, seed) for direction in DIRECTIONS[:2] for epoch in range(3) for seed in (1, 2)]
    assert all(sorted(one) == list(range(400)) for one in orders)
    for left, right in itertools.combinations(orders, 2):
        assert np.mean(np.equal(left, right)) < 0.05
    assert order(DIRECTIONS[0], 2) == orders[4]


def test_same_seed_same_stream(store):
    streams = []
    for seed in (1, 1, 2):
        iterator = train_batches(store, DIRECTIONS, DATA, rows=8, seed=seed)
        streams.append(take(iterator, 40))
        iterator.close()
    assert all(map(same, streams[0], streams[1]))
    assert not any(map(same, streams[0], streams[2]))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_stream_without_overlap(store, hosts):
    whole = mixed_references(TRAIN, DATA, 1)
    parts = [mixed_references(TRAIN, DATA, 1, host, hosts) for host in range(hosts)]
    assert [parts[i % hosts][i // hosts] for i in range(2000)] == [whole[i] for i in range(2000)]
    iterator = train_batches(store, DIRECTIONS, DATA, rows=64, seed=1, host=1, hosts=hosts)
    seen = Counter()
    for batch in take(iterator, 4):
        seen.update(unpacked(batch, 64))
    iterator.close()
    assert seen == expected(parts[1][i] for i in range(seen.total()))


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_mixture_follows_the_formula_on_every_host(hosts, temperature):
    sizes = dict(zip(DIRECTIONS, (4000, 4000, 250, 0), strict=True))
    data = DATA.model_copy(update={"temperature": temperature, "shuffle_window": 1024})
    total = 1024 * 8
    norm = sum(size ** (1 / temperature) for size in sizes.values() if size)
    shares = [size ** (1 / temperature) / norm if size else 0.0 for size in sizes.values()]
    counts = np.zeros((hosts, 4))
    for host in range(hosts):
        references = mixed_references(sizes, data, 1, host, hosts)
        for i in range(total // hosts):
            counts[host, references[i].direction] += 1
    for d, share in enumerate(shares):
        # Grain rounds weights down to integers of which the least is 100, and a round robin is off by less than one
        # for every direction; a host has a sample of that.
        systematic = 0.01 * share
        assert abs(counts[:, d].sum() - total * share) <= total * systematic + len(sizes)
        deviation = 5 * np.sqrt(share * (1 - share) * total / hosts) if hosts > 1 else 0
        assert np.all(
            np.abs(counts[:, d] - total / hosts * share) <= total / hosts * systematic + len(sizes) + deviation
        )


def test_no_host_is_starved_by_the_round_robin():
    even = dict.fromkeys(DIRECTIONS[:2], 1000)
    for host in range(2):
        references = mixed_references(even, DATA, 1, host, 2)
        drawn = Counter(references[i].direction for i in range(1000))
        assert set(drawn) == {0, 1}
        assert abs(drawn[0] - 500) < 80


# Resuming


class Run:
    """An uninterrupted run: the state before every batch, and the batches."""

    def __init__(self, iterator, count):
        self.states, self.batches = [iterator.get_state()], []
        for _ in range(count):
            self.batches.append(next(iterator))
            self.states.append(json.loads(json.dumps(iterator.get_state())))


@pytest.fixture(scope="module")
def uninterrupted(store):
    iterator = train_batches(store, DIRECTIONS, DATA, rows=24, seed=7)
    run = Run(iterator, 60)
    iterator.close()
    assert len({state["reference"] for state in run.states}) > 3
    return run


@settings(max_examples=25, deadline=None)
@given(done=st.integers(0, 55), before=st.integers(0, 3))
def test_resumes_exactly_after_any_batch(store, uninterrupted, done, before):
    states, batches = uninterrupted.states, uninterrupted.batches
    iterator = train_batches(store, DIRECTIONS, DATA, rows=24, seed=7)
    take(iterator, before)
    iterator.set_state(states[done])
    assert iterator.get_state() == states[done]
    assert all(map(same, take(iterator, 5), batches[done : done + 5]))
    assert iterator.get_state() == states[done + 5]
    iterator.close()


def test_resumes_through_orbax_beside_a_model(store, tmp_path, uninterrupted):
    model = {"w": np.arange(3.0)}
    iterator = train_batches(store, DIRECTIONS, DATA, rows=24, seed=7)
    take(iterator, 13)
    with ocp.CheckpointManager(tmp_path) as manager:
        saved = ocp.args.Composite(model=ocp.args.StandardSave(model), data=grain.checkpoint.CheckpointSave(iterator))
        manager.save(13, args=saved)
    iterator.close()
    resumed = train_batches(store, DIRECTIONS, DATA, rows=24, seed=7)
    with ocp.CheckpointManager(tmp_path) as manager:
        restored = manager.restore(
            13,
            args=ocp.args.Composite(
                model=ocp.args.StandardRestore(model), data=grain.checkpoint.CheckpointRestore(resumed)
            ),
        )
    assert np.array_equal(restored.model["w"], model["w"])
    assert all(map(same, take(resumed, 20), uninterrupted.batches[13:33]))
    resumed.close()


def test_closing_ends_the_thread(store):
    threads = set(threading.enumerate())
    iterator = train_batches(store, DIRECTIONS, DATA, rows=8, seed=1)
    next(iterator)
    assert set(threading.enumerate()) > threads
    iterator.close()
    assert set(threading.enumerate()) <= threads


# Development batches


@pytest.mark.parametrize("rows", [1, 24, 300])
@pytest.mark.parametrize("open_rows", [5, 256])
def test_dev_batches_hold_every_pair_once(store, rows, open_rows, monkeypatch):
    monkeypatch.setattr(pipeline, "_OPEN_ROWS", open_rows)
    batches = list(dev_batches(store, DIRECTIONS, DATA, rows))
    seen = Counter()
    for batch in batches:
        seen.update(unpacked(batch, rows))
        assert batch.tgt_segment.any()
    assert seen == expected(((d, i) for d, size in enumerate(DEV.values()) for i in range(size)), "dev")
    assert all(map(same, batches, dev_batches(store, DIRECTIONS, DATA, rows)))
    if rows > 1:
        assert set(batches[0].direction[batches[0].tgt_segment > 0]) == {0, 1, 2}


def test_directions_are_counted_in_the_order_given(store):
    chosen = [DIRECTIONS[2], DIRECTIONS[0]]
    (batch,) = dev_batches(store, chosen, DATA, 300)
    by_direction = {
        int(d): set(batch.tgt_out[(batch.direction == d) & (batch.tgt_position == 0) & (batch.tgt_segment > 0)])
        for d in (0, 1)
    }
    assert by_direction == {0: {102}, 1: {100}}


# Errors


def test_no_pairs_and_unknown_directions(store):
    with pytest.raises(UserError, match="no training pairs in any of the directions en-es"):
        train_batches(store, DIRECTIONS[3:], DATA, rows=8, seed=1)
    assert list(dev_batches(store, DIRECTIONS[3:], DATA, 8)) == []
    with pytest.raises(UserError, match="no prepared data for fr-en; there is de-en"):
        train_batches(store, [Direction("fr", "en")], DATA, rows=8, seed=1)


def test_rows_shorter_than_prepared(store):
    with pytest.raises(UserError, match="was prepared for rows of 64 and 64 tokens, not 64 and 32; delete"):
        train_batches(store, DIRECTIONS, DATA.model_copy(update={"target_length": 32}), rows=8, seed=1)


def test_no_store(tmp_path):
    with pytest.raises(UserError, match="no prepared data in"):
        train_batches(tmp_path, DIRECTIONS, DATA, rows=8, seed=1)


def test_a_damaged_shard_is_reported_by_the_iterator(tmp_path):
    pairs = {DIRECTIONS[0]: {"train": [("50 51", "52")] * 9}}
    prepare(pairs, Vocabularies.shared(Numbers()), tmp_path, digests={}, lengths=RowLengths(64, 64))
    (tmp_path / "train" / "de-en" / "00000.array_record").write_bytes(b"")
    iterator = train_batches(tmp_path, DIRECTIONS[:1], DATA, rows=8, seed=1)
    with pytest.raises(UserError, match="is damaged"):
        next(iterator)
    iterator.close()


# The mixing table


@given(
    st.lists(st.integers(0, 10**9), min_size=4, max_size=4).filter(any),
    st.floats(0.5, 100, allow_nan=False),
)
def test_probabilities(sizes, temperature):
    shares = probabilities(dict(zip(DIRECTIONS, sizes, strict=True)), temperature)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == {d for d, size in zip(DIRECTIONS, sizes, strict=True) if size}
    for (a, b), (x, y) in zip(
        itertools.permutations(shares, 2), itertools.permutations([s for s in sizes if s], 2), strict=True
    ):
        assert shares[a] / shares[b] == pytest.approx((x / y) ** (1 / temperature))


def test_mixing_table_foresees_what_is_drawn(store):
    stats = load_stats(store)
    steps, rows = 48, 16
    table = mixing_table(stats, DIRECTIONS, DATA, rows, steps)
    assert [(row.direction, row.pairs) for row in table] == list(TRAIN.items())
    assert sum(row.share for row in table) == pytest.approx(1)
    assert table[0].share / table[2].share == pytest.approx((400 / 37) ** 0.2)
    assert (table[3].share, table[3].examples, table[3].epochs) == (0, 0, 0)
    assert all(row.epochs == row.examples / row.pairs for row in table[:3])
    iterator = train_batches(store, DIRECTIONS, DATA, rows, seed=1)
    drawn = Counter(pair[0] for batch in take(iterator, steps) for pair in unpacked(batch, rows))
    iterator.close()
    for index, row in enumerate(table):
        assert drawn[index] == pytest.approx(row.examples, rel=0.1)
