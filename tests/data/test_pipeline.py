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
from nmt.config.schema_mixture import MixtureConfig, StageConfig
from nmt.data import pipeline
from nmt.data.batch import Batch
from nmt.data.mixture import mixing_table, probabilities
from nmt.data.order import permute
from nmt.data.packing import Examples, Prefixes, assemble, fit_rows
from nmt.data.pipeline import GlobalOrder, dev_batches, enter_stage, train_batches
from nmt.data.store import RowLengths, load_stats, prepare
from nmt.data.vocabularies import Vocabularies
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.sharding.hosts import HostShard

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
    languages = tuple(TAGS)
    symbols = ()

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
    prepare(pairs, Vocabularies.shared(Numbers()), directory, lengths=RowLengths(64, 64), shard_pairs=150)
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
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30),
    st.integers(1, 6),
)
def test_packed_rows_hold_what_was_put_in(shapes, rows):
    limits = RowLengths(9, 8)
    lengths = np.array([(source + 2, target + 1) for _, source, target in shapes])
    used, row = fit_rows(lengths, rows, limits)
    assert 1 <= used <= len(shapes)
    for r in range(rows):
        assert np.all(lengths[:used][row == r].sum(axis=0) <= limits)
    words, first = [], []  # the pairs lie in an order of their own, as they do when they are read shard by shard
    for i in np.random.default_rng(rows).permutation(used):
        first.append((i, len(words)))
        words += [50 + i] * shapes[i][1] + [90 + i] * shapes[i][2]
    source = np.array([place for _, place in sorted(first)])
    pieces = lengths[:used] - [2, 1]
    stream = np.array([d for d, _, _ in shapes[:used]])
    examples = Examples(row, stream, np.array(words, np.uint16), source, source + pieces[:, 0], pieces)
    tags = [[TAGS[direction.target]] for direction in DIRECTIONS]
    batch = assemble(examples, rows, limits, Prefixes(tags, np.full(4, 1), np.arange(4)))
    put = [(d, (50 + i,) * source, (90 + i,) * target) for i, (d, source, target) in enumerate(shapes[:used])]
    assert Counter(unpacked(batch, rows, limits)) == Counter(put)


def first_fit_slowly(lengths, rows, limits):
    """The row of every example by first fit, the longest first, looking at one row after the other; -1 for none."""
    used, placed = np.zeros((rows, 2), int), np.full(len(lengths), -1)
    for example in sorted(range(len(lengths)), key=lambda i: -max(lengths[i] / np.array(limits))):
        for row in range(rows):
            if np.all(used[row] + lengths[example] <= limits):
                used[row] += lengths[example]
                placed[example] = row
                break
    return placed


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=40),
    st.integers(1, 70),
)
def test_rows_are_those_of_first_fit(shapes, rows):
    lengths, limits = np.array(shapes), RowLengths(12, 9)
    used, row = fit_rows(lengths, rows, limits)
    assert np.array_equal(row, first_fit_slowly(lengths[:used], rows, limits))
    assert np.all(row >= 0)


def test_rows_are_filled_as_far_as_they_can_be():
    lengths = np.full((100, 2), 8)
    assert fit_rows(lengths, 4, RowLengths(64, 64))[0] >= 31  # of 32 that there is room for
    assert fit_rows(lengths[:5], 4, RowLengths(64, 64))[0] == 5


def test_a_pair_longer_than_a_row_is_an_error():
    with pytest.raises(ValueError, match="a pair of 10 and 1 tokens does not fit"):
        fit_rows(np.array([(9, 8), (10, 1)]), 2, RowLengths(9, 8))


def test_rows_are_well_filled(tmp_path):
    rng = np.random.default_rng(1)
    sides = [[" ".join(["50"] * n) for n in np.clip(rng.poisson(15, 2000), 3, 60)] for _ in range(2)]
    pairs = {DIRECTIONS[0]: {"train": list(zip(*sides, strict=True))}}
    prepare(pairs, Vocabularies.shared(Numbers()), tmp_path, lengths=RowLengths(64, 64))
    iterator = train_batches(tmp_path, DIRECTIONS[:1], DATA, rows=16, seed=1)
    batches = take(iterator, 32)
    iterator.close()
    fill = [
        np.mean([batch.src_segment > 0 for batch in batches]),
        np.mean([batch.tgt_segment > 0 for batch in batches]),
    ]
    assert max(fill) > 0.95


# The training stream


def global_order(sizes=TRAIN, data=DATA, seed=3):
    return GlobalOrder(list(sizes), np.array(list(sizes.values())), data, seed)


def references(count, sizes=TRAIN, data=DATA, seed=3):
    """The first references of the global order."""
    order = global_order(sizes, data, seed)
    _, window = order.take(order.start, count, 0)
    return list(zip(window.stream.tolist(), window.record.tolist(), strict=True))


def test_batches_hold_exactly_the_global_order(store):
    iterator = train_batches(store, DIRECTIONS, DATA, rows=8, seed=3)
    seen = Counter()
    for batch in take(iterator, 64):  # 64 batches of 8 rows are two blocks
        seen.update(unpacked(batch, 8))
    iterator.close()
    assert seen == expected(references(seen.total()))


def test_batches_of_a_block_are_alike(store, monkeypatch):
    """The first batch must not be the one of the longest pairs, nor the last one that of the emptiest rows."""
    monkeypatch.setattr(pipeline, "_OPEN_ROWS", 48)
    iterator = train_batches(store, DIRECTIONS[:1], DATA, rows=16, seed=1)
    batches = take(iterator, 30)
    iterator.close()
    fill = np.array([np.mean(batch.tgt_segment > 0) for batch in batches]).reshape(10, 3).mean(axis=0)
    count = np.array([batch.tgt_segment.max(axis=1).sum() for batch in batches]).reshape(10, 3).mean(axis=0)
    assert np.ptp(fill) < 0.1
    assert np.ptp(count) < 0.25 * count.mean()


@pytest.mark.parametrize("window", [1, 64, 256])
def test_every_pair_once_per_epoch(window):
    data = DATA.model_copy(update={"shuffle_window": window})
    sizes = {**TRAIN, DIRECTIONS[3]: 1}
    counts = Counter(references(256 * 12, sizes, data, seed=5))
    for index, size in enumerate(sizes.values()):
        drawn = sum(count for (direction, _), count in counts.items() if direction == index)
        times = [counts[index, record] for record in range(size)]
        assert drawn == sum(times) > size
        assert set(times) <= {drawn // size, -(-drawn // size)}


def order_of(direction, epoch, seed=1, size=400):
    data = DATA.model_copy(update={"shuffle_window": 100})
    return [record for _, record in references((epoch + 1) * size, {direction: size}, data, seed)[epoch * size :]]


def test_every_epoch_direction_and_seed_has_its_own_order():
    orders = [order_of(direction, epoch, seed) for direction in DIRECTIONS[:2] for epoch in range(3) for seed in (1, 2)]
    assert all(sorted(one) == list(range(400)) for one in orders)
    for left, right in itertools.combinations(orders, 2):
        assert np.mean(np.equal(left, right)) < 0.05
    assert order_of(DIRECTIONS[0], 2) == orders[4]


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(0, 2**63))
def test_permutations_are_permutations(size, key):
    sent = permute(np.arange(size), np.full(size, size), np.full(size, key, np.uint64))
    assert sorted(sent) == list(range(size))


def test_permutations_are_uniform():
    size, keys = 7, 4000
    counts = np.zeros((size, size))
    for key in np.random.default_rng(1).integers(0, 2**63, keys):
        sent = permute(np.arange(size), np.full(size, size), np.full(size, key, np.uint64))
        counts[np.arange(size), sent] += 1
    statistic = ((counts - keys / size) ** 2 / (keys / size)).sum()
    assert statistic < 73  # chi-square of 36 degrees of freedom: exceeded with probability 0.0003


def test_same_seed_same_stream(store):
    streams = []
    for seed in (1, 1, 2):
        iterator = train_batches(store, DIRECTIONS, DATA, rows=8, seed=seed)
        streams.append(take(iterator, 40))
        iterator.close()
    assert all(map(same, streams[0], streams[1]))
    assert not any(map(same, streams[0], streams[2]))


def joined(batches):
    return Batch(**{field: np.concatenate([getattr(batch, field) for batch in batches]) for field in FIELDS})


def test_hosts_rows_are_the_rows_of_one_host_and_may_change_in_the_middle(store):
    whole = train_batches(store, DIRECTIONS, DATA, rows=24, seed=1)
    state, expected_batches = whole.get_state(), take(whole, 32)
    whole.close()
    done = 0
    for hosts, steps in ((8, 5), (1, 6), (4, 9), (2, 7), (8, 5)):
        parts = [train_batches(store, DIRECTIONS, DATA, 24, 1, HostShard(host, hosts)) for host in range(hosts)]
        for part in parts:
            part.set_state(state)
        for _ in range(steps):
            assert same(joined([next(part) for part in parts]), expected_batches[done])
            done += 1
        states = [part.get_state() for part in parts]
        assert all(other == states[0] for other in states)
        state = json.loads(json.dumps(states[0]))
        for part in parts:
            part.close()
    assert done == 32


def test_rows_that_hosts_cannot_share(store):
    with pytest.raises(UserError, match="a batch of 24 rows cannot be shared by 5 hosts"):
        train_batches(store, DIRECTIONS, DATA, 24, 1, HostShard(0, 5))


def chi_square(counts, shares):
    wanted = shares * counts.sum()
    return float(((counts - wanted)[shares > 0] ** 2 / wanted[shares > 0]).sum())


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_a_million_draws_follow_the_formula(temperature):
    sizes = [int(10 ** (2 + 5 * i / 49)) for i in range(50)]
    directions = [Direction(f"x{i}", "en") for i in range(50)]
    data = DATA.model_copy(update={"temperature": temperature, "shuffle_window": 8192})
    total = 1 << 20
    stream = np.array([d for d, _ in references(total, dict(zip(directions, sizes, strict=True)), data)])
    weights = np.array(sizes) ** (1 / temperature)
    shares = weights / weights.sum()
    # Exceeded with probability 0.001 at 49 degrees of freedom, by independent draws; these keep closer to the shares.
    assert chi_square(np.bincount(stream, minlength=50), shares) < 85.4
    assert np.abs(np.bincount(stream, minlength=50) - total * shares).max() < 5 * np.sqrt(total / 8192)
    for hosts in (2, 4, 8):  # any part that does not look at what it takes
        for host in range(hosts):
            assert chi_square(np.bincount(stream[host::hosts], minlength=50), shares) < 85.4


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_every_host_sees_the_mixture(store, hosts):
    norm = sum(size**0.2 for size in TRAIN.values() if size)
    shares = np.array([size**0.2 / norm if size else 0 for size in TRAIN.values()])
    for host in range(hosts):
        iterator = train_batches(store, DIRECTIONS, DATA, 64, 1, HostShard(host, hosts))
        counts = np.zeros(4)
        for batch in take(iterator, 24):
            counts += np.bincount([pair[0] for pair in unpacked(batch, 64 // hosts)], minlength=4)
        iterator.close()
        assert chi_square(counts, shares) < 13.8  # 2 degrees of freedom, probability 0.001


def test_a_million_draws_of_hosts_follow_the_formula(store):
    """Of what the hosts really get, in packed rows."""
    weights = np.array(list(TRAIN.values())) ** 0.2 * (np.array(list(TRAIN.values())) > 0)
    counts = np.zeros((2, 4))
    for host in range(2):
        iterator = train_batches(store, DIRECTIONS, DATA, 1024, 1, HostShard(host, 2))
        while counts[host].sum() < 1 << 19:
            batch = next(iterator)
            first = (batch.tgt_segment > 0) & (batch.tgt_position == 0)
            counts[host] += np.bincount(batch.direction[first], minlength=4)
        iterator.close()
    for drawn in (*counts, counts.sum(axis=0)):
        assert chi_square(drawn, weights / weights.sum()) < 13.8


def test_a_schedule_changes_the_mixture_over_steps(store):
    mixture = MixtureConfig(temperatures=("10:1", "60:1000"))
    data = DATA.model_copy(update={"mixture": mixture, "shuffle_window": 64})
    iterator = train_batches(store, DIRECTIONS, data, rows=32, seed=1)
    counts = []
    for batch in take(iterator, 120):
        counts.append(np.bincount([pair[0] for pair in unpacked(batch, 32)], minlength=4))
    iterator.close()
    first, last = np.sum(counts[:10], axis=0), np.sum(counts[80:], axis=0)
    assert first[2] / first.sum() == pytest.approx(37 / 837, abs=0.015)
    assert last[2] / last.sum() == pytest.approx(1 / 3, abs=0.02)


def test_a_stage_changes_nothing_but_what_is_drawn(store):
    """No example is lost or repeated where the stage changes, and a resumed run repeats the change."""
    stages = (StageConfig(directions=("*-en",), steps=1), StageConfig(directions=("en-de",)))
    data = DATA.model_copy(update={"mixture": MixtureConfig(stages=stages)})

    def batches(resume_at=None):
        iterator = train_batches(store, DIRECTIONS, data, rows=128, seed=1)
        seen, state = [], None
        for number in range(12):
            if number == 3:
                iterator.set_state(enter_stage(iterator.get_state(), 1, 3))
            if number == resume_at:
                state = json.loads(json.dumps(iterator.get_state()))
                iterator.close()
                iterator = train_batches(store, DIRECTIONS, data, rows=128, seed=1)
                iterator.set_state(state)
            seen.append(next(iterator))
        iterator.close()
        return seen

    whole = batches()
    drawn = [{pair[0] for pair in unpacked(batch, 128)} for batch in whole]
    assert drawn[:4] == [{0, 2}] * 4
    assert drawn[4:] == [{1}] * 8
    for resume_at in (3, 4, 5, 9):
        assert all(map(same, whole, batches(resume_at)))
    counts = Counter(pair for batch in whole for pair in unpacked(batch, 128))
    for direction, size in ((0, 400), (1, 400), (2, 37)):
        times = [counts[(direction, *pair_of(DIRECTIONS[direction], record))] for record in range(size)]
        assert max(times) - min(times) <= 1


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
    assert len({(state["window"], state["offset"]) for state in run.states}) > 3
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


@pytest.mark.parametrize("damage", ["empty", "longer"])
def test_a_damaged_shard_is_reported_by_the_iterator(tmp_path, damage):
    pairs = {DIRECTIONS[0]: {"train": [("50 51", "52")] * 40}}
    prepare(pairs, Vocabularies.shared(Numbers()), tmp_path, lengths=RowLengths(64, 64))
    folder = tmp_path / "train" / "de-en"
    if damage == "empty":
        (folder / "00000.tokens.npy").write_bytes(b"")
    else:
        bounds = np.load(folder / "00000.bounds.npy")
        bounds[20] += 80
        bounds[21:] = np.maximum(bounds[21:], bounds[20])
        np.save(folder / "00000.bounds.npy", bounds)
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
