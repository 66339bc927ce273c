"""The ring, with payloads that encode their own (environment row, time)."""

import functools

import jax
import numpy as np
import pytest

from wmjax import memory, replay
from wmjax.types import Step, UsageError

E, CAPACITY, LENGTH = 3, 8, 3
KEY = jax.random.key(0)
sample = jax.jit(replay.sample, static_argnums=(2, 3))
sample_within = jax.jit(replay.sample_within_episodes, static_argnums=(2, 3))
extend = jax.jit(replay.extend)


def steps(first, count, rows=E, begins=()):
    """Step [T, E] of times first ... first + count - 1; `begins` holds the (row, time) where an episode begins."""
    time = np.arange(first, first + count)[:, None].repeat(rows, axis=1)
    row = np.arange(rows)[None].repeat(count, axis=0)
    begin = np.array([[(b, t) in begins for b in range(rows)] for t in range(first, first + count)])
    return Step(
        prev_action=np.stack([row, -time], -1).astype(np.float32),
        obs=np.stack([row, time], -1).astype(np.uint8)[:, :, None, None],
        reward=(100.0 * row + time).astype(np.float32),
        discount=np.ones((count, rows), np.float32),
        is_first=begin,
        is_last=np.zeros((count, rows), bool),
    )


def filled(count, rows=E, capacity=CAPACITY, begins=()):
    """A ring after `count` rows of time, appended one by one."""
    ring = replay.init(capacity, rows, jax.tree.map(lambda x: x[0], steps(0, 1, rows)))
    for t in range(count):
        ring = extend(ring, steps(t, 1, rows, begins))
    return ring


def place(chunks):
    """(row, time) of every record, int [B, T] each; all the fields must agree on it."""
    row, time = (np.asarray(chunks.obs[..., 0, 0, i]).astype(int) for i in (0, 1))
    np.testing.assert_array_equal(chunks.prev_action, np.stack([row, -time], -1))
    np.testing.assert_array_equal(chunks.reward, 100 * row + time)
    return row, time


@pytest.mark.parametrize("count", [LENGTH, 5, CAPACITY, CAPACITY + 1, 13, 3 * CAPACITY], ids=lambda n: f"rows{n}")
def test_chunks_are_consecutive_and_their_starts_uniform(count):
    """Every start from the oldest row to the last that fits, in every environment, equally often."""
    draws = 3000
    row, time = place(sample(filled(count), KEY, draws, LENGTH))
    assert (row == row[:, :1]).all()
    assert (time == time[:, :1] + np.arange(LENGTH)).all()
    oldest = max(0, count - CAPACITY)
    starts = count - LENGTH - oldest + 1
    seen = np.zeros((E, starts))
    np.add.at(seen, (row[:, 0], time[:, 0] - oldest), 1)
    expected = draws / seen.size
    chi_square = (np.square(seen - expected) / expected).sum()
    freedom = seen.size - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("count", [7, CAPACITY, 11, 21])
def test_chunks_within_episodes(count):
    """All starts whose chunk begins no episode after its first row, and only those, equally often."""
    rng = np.random.default_rng(count)
    begins = {(row, 0) for row in range(E)} | {(row, t) for row in range(E) for t in range(1, 30) if rng.random() < 0.3}
    oldest = max(0, count - CAPACITY)
    valid = {
        (row, start)
        for row in range(E)
        for start in range(oldest, count - LENGTH + 1)
        if not any((row, t) in begins for t in range(start + 1, start + LENGTH))
    }
    assert 0 < len(valid) < E * (count - LENGTH - oldest + 1)
    draws = 3000
    chunks = sample_within(filled(count, begins=begins), KEY, draws, LENGTH)
    row, time = place(chunks)
    assert (row == row[:, :1]).all()
    assert (time == time[:, :1] + np.arange(LENGTH)).all()
    assert not np.asarray(chunks.is_first)[:, 1:].any()
    found, seen = np.unique(np.stack([row[:, 0], time[:, 0]]), axis=1, return_counts=True)
    assert {tuple(pair) for pair in found.T.tolist()} == valid
    expected = draws / len(valid)
    freedom = max(len(valid) - 1, 1)
    assert (np.square(seen - expected) / expected).sum() < freedom + 5 * np.sqrt(2 * freedom)


def test_a_chunk_may_be_the_whole_ring():
    row, time = place(sample(filled(11), KEY, 20, CAPACITY))
    assert (time == np.arange(3, 11)).all() and set(row[:, 0]) == set(range(E))
    _, time = place(sample_within(filled(11), KEY, 20, CAPACITY))
    assert (time == np.arange(3, 11)).all()


def test_samples_depend_on_the_key_alone():
    ring = filled(CAPACITY)
    one, again, other = (sample(ring, jax.random.key(seed), 50, LENGTH).reward for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_what_goes_in_keeps_its_type():
    ring = filled(2)
    assert ring.rows.obs.dtype == np.uint8 and ring.rows.obs.shape == (E, CAPACITY, 1, 1, 2)
    given, chunks = steps(0, 1), sample(ring, KEY, 4, 2)
    assert [x.dtype for x in jax.tree.leaves(chunks)] == [x.dtype for x in jax.tree.leaves(given)]
    assert {x.shape[:2] for x in jax.tree.leaves(chunks)} == {(4, 2)}
    discrete = given.replace(prev_action=np.zeros((1, E), np.int32))
    ring = replay.init(4, E, jax.tree.map(lambda x: x[0], discrete))
    assert ring.rows.prev_action.dtype == np.int32 and ring.rows.prev_action.shape == (E, 4)


def test_add_equals_extend_by_one_and_extend_equals_many_adds():
    one = jax.jit(replay.add)(filled(7), jax.tree.map(lambda x: x[0], steps(7, 1)))
    jax.tree.map(np.testing.assert_array_equal, one, filled(8))
    many = extend(extend(filled(0), steps(0, 6)), steps(6, 6))
    jax.tree.map(np.testing.assert_array_equal, many, filled(12))


def test_extend_by_a_count_leaves_out_the_rest():
    some = jax.jit(replay.extend)
    ring = some(some(filled(6), steps(6, 5), 3), steps(9, 5), 0)
    jax.tree.map(np.testing.assert_array_equal, ring, filled(9))
    wider = some(filled(6), steps(6, CAPACITY + 3), 5)  # more rows than there are slots
    jax.tree.map(np.testing.assert_array_equal, wider, filled(11))


@pytest.mark.parametrize(
    ("episodes", "expected"),
    [((), 0), ((3,), 3), ((3, 4), 4), ((2, 9), CAPACITY), ((5, 5, 2), 5), ((9, 1, 1, 1, 1, 1), 3), ((1,) * 12, 1)],
)
def test_longest_episode_in_the_ring(episodes, expected):
    """Of what the ring still holds; the other rows begin one at every step."""
    begins = {(0, sum(episodes[:i])) for i in range(len(episodes))}
    begins |= {(row, t) for row in range(1, E) for t in range(sum(episodes))}
    assert int(jax.jit(replay.longest_episode)(filled(sum(episodes), begins=begins))) == expected


def test_more_rows_than_fit_are_refused():
    with pytest.raises(ValueError, match="9 steps"):
        replay.extend(filled(0), steps(0, CAPACITY + 1))


def test_chunks_that_are_not_there_are_refused():
    """The capacity inside jit too, what the ring holds where it is known."""
    ring = filled(6, begins={(row, t) for row in range(E) for t in (0, 2)})  # episodes of 2 and 4 rows
    for length in (0, CAPACITY + 1):
        with pytest.raises(UsageError, match=f"chunks of {length} rows from a replay of {CAPACITY}"):
            sample(ring, KEY, 2, length)
    with pytest.raises(UsageError, match="chunks of 7 rows: the longest in the replay has 6"):
        replay.sample(ring, KEY, 2, 7)
    with pytest.raises(UsageError, match="chunks of 5 rows: the longest in the replay has 4"):
        replay.sample_within_episodes(ring, KEY, 2, 5)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda step: dict(obs=step.obs / np.float32(255)), "obs is .*float32.* expected .*uint8"),
        (lambda step: dict(obs=step.obs[..., :1]), r"obs is \(\(2, 3, 1, 1, 1\), 'uint8'\): expected"),
        (lambda step: dict(reward=step.reward[:, :1]), r"reward is \(\(2, 1\), 'float32'\): expected \(\(2, 3\)"),
        (lambda step: dict(obs=None), "obs is None"),
    ],
    ids=["float images", "fewer pixels", "one environment", "no images"],
)
def test_rows_unlike_the_example_are_refused(wrong, message):
    """They would be cast or repeated."""
    step = steps(0, 2)
    with pytest.raises(UsageError, match=message):
        replay.extend(filled(0), step.replace(**wrong(step)))
    with pytest.raises(UsageError, match=r"example Step's reward is \(2, 3\): expected \(3,\)"):
        replay.init(CAPACITY, E, step)


def test_donated_rings_are_written_in_place():
    old = filled(3, capacity=5000)
    size, address = sum(x.nbytes for x in jax.tree.leaves(old)), old.rows.obs.unsafe_buffer_pointer()
    program = jax.jit(replay.extend, donate_argnums=0).lower(old, steps(3, 1)).compile()
    memory = program.memory_analysis()
    assert memory.alias_size_in_bytes == size and memory.temp_size_in_bytes < size / 100
    new = program(old, steps(3, 1))
    assert old.rows.obs.is_deleted() and old.rows.reward.is_deleted()
    assert new.rows.obs.unsafe_buffer_pointer() == address
    jax.tree.map(np.testing.assert_array_equal, new, filled(4, capacity=5000))


def test_bytes_and_memory():
    step = jax.tree.map(lambda x: x[0], steps(0, 1))
    row = 2 * 4 + 2 + 4 + 4 + 1 + 1
    assert replay.nbytes(10, step) == 10 * E * row
    assert sum(x.nbytes for x in jax.tree.leaves(replay.init(10, E, step).rows)) == 10 * E * row


def test_a_ring_that_cannot_fit_is_refused_before_it_is_made(monkeypatch):
    step = jax.tree.map(lambda x: x[0], steps(0, 1))
    init = functools.partial(replay.init, num_envs=E, step=step)
    monkeypatch.setattr(memory, "free_memory", lambda: 500_000_000)
    with pytest.raises(UsageError, match=r"10000000 rows .* 0\.60 GB, 0\.50 GB are free") as caught:
        init(10_000_000)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="GB"):
        init(10**13)
    for capacity in (0, -1):
        with pytest.raises(UsageError, match="at least 1"):
            init(capacity)
