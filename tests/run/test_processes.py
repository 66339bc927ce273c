"""What several processes of a run need, in one process; whole runs: tests/experiments."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests import mains
from tests.gym_walk import GymWalk
from wmjax import backend, envs, replay
from wmjax.envs import snapshots
from wmjax.envs.seeds import row_seeds
from wmjax.run import collect, devices, pools, processes, replays
from wmjax.run.members import Member
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import Step, UsageError


class UnevenWalk(GymWalk):
    """Whose rows end apart."""

    def __init__(self, seed):
        super().__init__(seed)
        self.limit = 2 + seed % 4

    def step(self, action):
        image, reward, ended, _, more = super().step(action)
        return image, reward, ended, self.elapsed >= self.limit, more


FAMILIES = {
    "fake:counter": dict(episode_steps=5),
    "atari:Pong": dict(episode_steps=16, size=16),
    "py:tests.run.test_processes:UnevenWalk": {},
    "dmc:cartpole_balance": dict(episode_steps=24, size=16),
}
ROWS, SHARES = 4, ((2, 0), (2, 2))  # (rows, the first of them) of two processes
DECISIONS = 6
SLOW = ("atari:Pong", "dmc:cartpole_balance")


def made(name, rows=ROWS, first=0):
    env = envs.make(name, rows, 0, first_row=first, **FAMILIES[name])
    env = env if env.spec.action.discrete else envs.pad(env, 3)
    env.reset()
    return env


def drawn_actions(spec):
    random = np.random.default_rng(0)
    if spec.discrete:
        return random.integers(0, spec.size, (2 * DECISIONS, ROWS), np.int32)
    return random.uniform(-1, 1, (2 * DECISIONS, ROWS, spec.size)).astype(np.float32)


def whole(steps):
    return jax.tree.map(lambda *x: np.concatenate(x), *steps)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.slow] * (x in SLOW)) for x in FAMILIES])
def test_rows_of_one_pool_can_be_played_in_shares_and_go_on_in_other_shares(name):
    pool, parts = made(name), [made(name, *share) for share in SHARES]
    actions = drawn_actions(pool.spec.action)
    cut = [slice(first, first + rows) for rows, first in SHARES]
    for action in actions[:DECISIONS]:
        assert_equal(pool.step(action), whole([part.step(action[rows]) for part, rows in zip(parts, cut, strict=True)]))
    of_pool, of_parts = pool.snapshot(), snapshots.join([part.snapshot() for part in parts])
    joined, split = made(name), [made(name, *share) for share in SHARES]
    joined.restore(of_parts)
    for part, (rows, first) in zip(split, SHARES, strict=True):
        part.restore(snapshots.rows_of(of_pool, first, rows))
    for action in actions[DECISIONS:]:
        step = pool.step(action)
        assert_equal(joined.step(action), step)
        assert_equal(whole([part.step(action[rows]) for part, rows in zip(split, cut, strict=True)]), step)


def test_a_share_has_the_seeds_of_its_rows():
    assert row_seeds(3, 2, "evaluation", 5) == row_seeds(3, 7, "evaluation")[5:]


def test_rows_of_members_have_seeds_of_their_own(monkeypatch):
    """By member, by what they are for and by number in the whole run: of four the second of two has the last two."""
    seeds, members = [], [Member("a", 3), Member("b", 4)]

    def make(task, rows, seed, purpose="train", first_row=0):
        seeds.append((task, row_seeds(seed, rows, purpose, first_row)))

    monkeypatch.setattr(pools.envs, "make", make)
    monkeypatch.setattr(pools, "JoinedVecEnv", lambda parts: SimpleNamespace(spec=None))
    monkeypatch.setattr(processes, "_count", 2)
    monkeypatch.setattr(processes, "_index", 1)
    pools.join_envs(members, 4, {}, "evaluation")
    pools.single_envs(members, {})
    assert seeds[:2] == [(each.task, row_seeds(each.seed, 4, "evaluation")[2:]) for each in members]
    assert seeds[2:] == [(each.task, row_seeds(each.seed, 1)) for each in members]


def test_everything_is_its_own_in_one_process():
    assert processes.share(6) == (6, 0) and processes.is_first() and processes.count() == 1
    value = object()
    assert processes.gather(value) == [value] and processes.to_host(value) is value
    assert processes.of_first(lambda: value) is value and processes.whole_rows(value, 2, 0) is value


@pytest.mark.parametrize("text", ["on", "host/2/0", "host:1/2", "host:1/2/2", "host:1/0/0", ":1/2/0", "host:1/2/-1"])
def test_what_names_no_process_is_refused_before_anything_is_done(text, tmp_path):
    ended = mains.refused(tmp_path / "run", f"--distributed={text}")
    assert ended.code == 2 and not (tmp_path / "run").exists()
    assert ended.stderr == f"error: --distributed={text}: give {processes.FORMS}\n"


def test_an_address_is_read():
    assert processes.read("auto") is None
    assert processes.read("[::1]:80/12/3") == processes.Address("[::1]:80", 12, 3)


def test_rows_of_processes_are_put_together_member_by_member(monkeypatch):
    parts = [np.array([[0, 1, 10, 11]]), np.array([[2, 3, 12, 13]])]  # [T, S * own rows]
    monkeypatch.setattr(processes, "_count", 2)
    monkeypatch.setattr(processes, "gather", lambda tree: parts)
    assert processes.whole_rows(parts[0], 2, axis=1).tolist() == [[0, 1, 2, 3, 10, 11, 12, 13]]


@pytest.mark.parametrize("play", [collect.play_episodes, functools.partial(collect.play_returns, film=9)])
def test_a_play_goes_on_until_it_is_over_in_every_process(play, monkeypatch):
    others = iter((False, False, True))  # whether it is over in the other process too
    monkeypatch.setattr(processes, "everywhere", lambda over: over and next(others))
    env = envs.make("fake:counter", 1, 0, episode_steps=3)
    player = collect.Player(lambda params: None, lambda *_: (None, np.zeros((1, 1, 2), np.float32), ()), None)
    steps = next(x for x in play(env, player, None, [0], Stopwatch()) if isinstance(x, Step))
    assert len(steps.reward) == 1 + 3 + 2


def test_what_one_process_plays_all_see(monkeypatch):
    """In the second of two: it steps nothing, and has what the first one sends."""
    members, options = [Member("fake:counter", 3), Member("fake:counter", 4)], dict(episode_steps=5)
    action = np.ones((2, 2), np.float32)
    pool = pools.single_envs(members, options)
    expected = [pool.reset(), pool.step(action), pool.snapshot(), pool.restore(pool.snapshot())]
    sent = iter(expected)
    monkeypatch.setattr(processes, "_count", 2)
    monkeypatch.setattr(processes, "_index", 1)
    monkeypatch.setattr(processes, "gather", lambda own: [(next(sent), None), own])
    second = pools.single_envs(members, options)
    second._env.step = second._env.reset = None
    assert_equal([second.reset(), second.step(action), second.snapshot(), second.restore({})], expected)
    assert expected[0].reward.shape == (2,)


def test_devices_are_as_many_of_each_process(monkeypatch):
    class Device:
        def __init__(self, process_index):
            self.process_index = process_index

    found = [Device(index) for index in (0, 0, 1, 1)]
    monkeypatch.setattr(jax, "devices", lambda: found)
    monkeypatch.setattr(devices, "Mesh", lambda array, names: list(array))
    assert devices.make_mesh(2) == [found[0], found[2]] and devices.make_mesh("all") == found
    with pytest.raises(UsageError, match="config.devices=3: cannot be split over 2 processes"):
        devices.make_mesh("3")


@pytest.mark.parametrize(
    ("platform", "num_envs", "share"), [("gpu", 4, 1 / 8), ("gpu", 1, 1), ("cpu", 4, 1 / 2), ("cpu", 1, 4)]
)
def test_a_replay_takes_the_memory_that_its_devices_share(platform, num_envs, share, monkeypatch):
    """Eight devices, four of them this process's own. The row of a single environment is on each."""
    mesh, asked = SimpleNamespace(size=8, local_devices=range(4)), []
    monkeypatch.setattr(backend, "name", lambda: platform)
    monkeypatch.setattr(replays, "check_fits", lambda size, what: asked.append(size))
    example = made("fake:counter", num_envs).reset()
    replays.check_memory(10, num_envs, example, 2, mesh)
    assert asked == [2 * replay.nbytes(10, example) * share]


def test_arrays_are_split_at_the_axis_of_their_rows():
    mesh = jax.sharding.AbstractMesh((2,), (devices.AXIS,))

    def shapes(rows):
        made = dict(first=(rows, 2), third=(5, 2, rows), none=(3,), scalar=())
        return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in made.items()}

    specs = {name: tuple(each.spec) for name, each in devices.split_rows(mesh, shapes).items()}
    assert specs == dict(first=(devices.AXIS,), third=(None, None, devices.AXIS), none=(), scalar=())


def test_keys_and_arrays_are_stored_by_one_of_several_processes(monkeypatch):
    on_all = jax.device_put((jax.random.key(3), jax.numpy.arange(2)), devices.replicated(devices.make_mesh("1")))
    tree = dict(zip(("key", "array"), on_all, strict=True), number=4)
    monkeypatch.setattr(processes, "_count", 2)
    stored = processes.to_host(tree)
    assert isinstance(stored["array"], np.ndarray) and stored["number"] == 4
    assert isinstance(stored["key"].sharding, jax.sharding.SingleDeviceSharding)  # not of the mesh
    assert_equal(jax.random.key_data(stored["key"]), jax.random.key_data(tree["key"]))
