"""The recorder of the environment models: what it stores, resumes, repairs and refuses; reading damaged folders."""

import ast
import json
import shutil
import signal

import jax
import numpy as np
import pytest

from experiments.smaller_world_models import agent as agents
from experiments.smaller_world_models import config
from tests import mains
from wmjax import envs
from wmjax.envs import atari_actions
from wmjax.run.collect import make_player, play_returns
from wmjax.run.members import alone
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import checkpoint, datasets, workdir
from wmjax.types import Step, UsageError

FAKE = ("--game=fake:counter", "--steps=130", "--envs=2", "--rows=30")  # three shards of 60 decisions
FILES = ["test_00000.npz", "train_00000.npz", "train_00001.npz"]
# What record.py moves into place on FAKE: config, versions, then each shard and shards.json after it.
SECOND_SHARD, SECOND_INDEX, THIRD_SHARD = 5, 6, 7


def record(folder, *flags, kill_at=0):
    return mains.fork("record", ["record", f"--folder={folder}", *flags], kill_at=kill_at)


def recorded(folder, *flags):
    ended = record(folder, *flags)
    assert ended.code == 0, ended.stderr
    return ended


def arrays(folder):
    """Every field of every shard, by file and field."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            found |= {f"{path.name}/{name}": file[name] for name in file}
    return found


def assert_refused(ended, message):
    assert ended.code == 2 and message in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted recording of random actions: (folder, what it printed)."""
    folder = tmp_path_factory.mktemp("data") / "whole"
    return folder, recorded(folder, *FAKE).stdout


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "copy")


def test_shards_hold_what_was_played(whole):
    folder, printed = whole
    assert sorted(path.name for path in folder.glob("*.npz")) == FILES
    (train, faults), (test, more) = datasets.read(folder, "train"), datasets.read(folder, "test")
    assert not faults and not more and len(train) == 2 and len(test) == 1
    spec = datasets.read_spec(folder)
    assert datasets.nbytes(folder, "train") == sum(steps.obs.nbytes for steps in train)
    assert spec == envs.make("fake:counter", 1, 0).spec
    returns = []
    for steps in (*train, *test):
        assert steps.obs.shape == (31, 2, *spec.obs_shape) and steps.obs.dtype == np.uint8
        assert steps.prev_action.shape == (31, 2, 2) and steps.prev_action.dtype == np.float32
        assert steps.is_first[0].all() and (steps.is_first[1:] == steps.is_last[:-1]).all()  # 12 decisions, then anew
        assert steps.is_last[12].all() and steps.is_last[25].all() and steps.is_last.sum() == 4
        assert np.ptp(steps.prev_action) > 1.5 and np.ptp(steps.reward) > 0
        returns += [*steps.reward[:13].sum(0), *steps.reward[13:26].sum(0)]
    assert len({steps.obs.tobytes() for steps in (*train, *test)}) == 3
    index = json.loads((folder / "shards.json").read_text())["body"]
    size = sum((folder / name).stat().st_size for name in FILES)
    last = printed.splitlines()[-2]  # after it, tests.mains' own line
    wanted = f"180 steps, 12 episodes, mean return {np.mean(returns):.2f}, {size / 180:.0f} bytes a step"
    assert wanted in last and len(index["shards"]) == 3


def test_images_belong_to_their_actions(whole):
    """The same game, played anew with the recorded actions of one shard."""
    steps = datasets.read(whole[0], "test")[0][0]
    seed = int(np.random.SeedSequence([0, 1]).generate_state(1)[0]) % (2**31 - 2)
    env = envs.make("fake:counter", 2, seed)
    again = [env.reset()] + [env.step(action) for action in steps.prev_action[1:]]
    for t, step in enumerate(again):
        np.testing.assert_array_equal(step.obs, steps.obs[t])
        np.testing.assert_array_equal(step.reward, steps.reward[t])


@pytest.mark.parametrize("kill_at", [SECOND_SHARD, SECOND_INDEX, THIRD_SHARD])
def test_killed_recording_ends_bit_identical(whole, tmp_path, kill_at):
    folder = tmp_path / "data"
    assert record(folder, *FAKE, kill_at=kill_at).code == -signal.SIGKILL
    halves = list(folder.glob(".*.tmp"))
    assert len(halves) == 1
    halves[0].write_bytes(halves[0].read_bytes()[:100])
    assert len(datasets.read(folder, "train")[0]) == 1  # what there is can be used
    recorded(folder, *FAKE)
    mains.assert_same(arrays(folder), arrays(whole[0]))
    assert (folder / "shards.json").read_text() == (whole[0] / "shards.json").read_text()
    assert not list(folder.glob(".*.tmp"))


def test_more_steps_add_shards(whole, tmp_path):
    folder = tmp_path / "data"
    recorded(folder, *FAKE, "--steps=1")  # two shards at the least
    assert sorted(path.name for path in folder.glob("*.npz")) == FILES[:2]
    recorded(folder, *FAKE)
    mains.assert_same(arrays(folder), arrays(whole[0]))
    assert "fewer" not in recorded(folder, *FAKE, "--steps=1").stdout
    assert sorted(path.name for path in folder.glob("*.npz")) == FILES


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_damaged_and_missing_shards_are_named_and_recorded_again(whole, copy):
    flip(copy / "train_00000.npz")
    good, faults = datasets.read(copy, "train")
    assert len(good) == 1 and len(faults) == 1
    assert "train_00000.npz is damaged" in faults[0] and "\n" not in faults[0]
    np.testing.assert_array_equal(good[0].obs, arrays(whole[0])["train_00001.npz/obs"])
    shutil.copy(copy / "train_00001.npz", copy / "train_00000.npz")  # a whole file, but another one
    assert "train_00000.npz is damaged" in datasets.read(copy, "train")[1][0]
    (copy / "train_00001.npz").unlink()
    with pytest.raises(UsageError, match=r"no good train shard: .*00000.npz is damaged.*00001.npz is missing"):
        datasets.read(copy, "train")
    assert len(datasets.read(copy, "test")[0]) == 1
    ended = recorded(copy, *FAKE)
    assert "train_00000.npz is damaged" in ended.stderr and "train_00001.npz is missing" in ended.stderr
    mains.assert_same(arrays(copy), arrays(whole[0]))


def test_folders_that_cannot_be_read(copy, tmp_path):
    with pytest.raises(UsageError, match="choose one of train, test"):
        datasets.read(copy, "validation")
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="holds no recorded data: it has no shards.json"):
            datasets.read(path, "train")
    index = copy / "shards.json"
    text = index.read_text()
    for bad in (text[:-20], text.replace('"rows": 62', '"rows": 63'), "", "[]", '{"body": {}}'):
        index.write_text(bad)
        reads = ((datasets.read, "train"), (datasets.nbytes, "train"), (datasets.read_spec,), (datasets.fingerprint,))
        for read, *split in reads:
            with pytest.raises(UsageError, match="shards.json is damaged"):
                read(copy, *split)
    assert_refused(record(copy, *FAKE), "shards.json is damaged")


def test_other_flags_are_refused(copy):
    before = arrays(copy)
    for flag, message in (
        ("--seed=1", "seed 0 -> 1"),
        ("--rows=31", "rows 30 -> 31"),
        ("--envs=3", "envs 2 -> 3"),
        ("--game=fake:terminating", "game fake:counter -> fake:terminating"),
    ):
        assert_refused(record(copy, *FAKE, flag), message)
    mains.assert_same(arrays(copy), before)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--game=Pongg"], "Did you mean Pong"),
        (["--game=fake:count"], "Did you mean counter"),
        (["--game=Pong", "--size=85x64"], "--size=85x64: rows must be a multiple of 20"),
        (["--game=Pong", "--size=80"], "--size=80: must be ROWSxCOLUMNS"),
        (["--game=Pong", "--size=260x64"], "size=273 is not allowed"),
        (["--size=80x64"], "--size=80x64: is for Atari games"),
        (["--actions=0"], "--actions=0: is for Atari games"),
        (["--game=Pong", "--actions=0,x"], "--actions=0,x: must be numbers with commas between them"),
        (["--game=Pong", "--actions=0,18"], "actions=[0, 18] is not allowed: expected different numbers"),
        (["--steps=0"], "--steps=0"),
        (["--rows=0"], "--rows=0"),
        (["--envs=0"], "--envs=0"),
        (["--seed=-1"], "--seed=-1"),
        (["--seed=99999999999999999999999"], "--seed=99999999999999999999999"),
        (["--steps=999999999999"], "shards, at most 100000; raise --rows or --envs"),
        (["--steps=99999999999999999999999"], "--steps=99999999999999999999999"),
        (["--game=Pong", "--rows=1000000"], "a shard of --rows=1000000 and --envs=2 needs 192.00 GB"),
        (["--game=Pong", "--size=99999999999x64"], "must be ROWSxCOLUMNS"),
        (["--member=1"], "--member=1: is for a run's agents"),
        (["--policy=nowhere"], "--policy=nowhere: holds no run; give random, or the folder"),
        (["--folders=a"], "folders"),
        (["more"], "unexpected argument"),
    ],
)
def test_bad_flags_end_in_one_line(flags, message, tmp_path):
    ended = mains.call("record", f"--folder={tmp_path / 'data'}", *FAKE, *flags)
    assert_refused(ended, message)
    assert not (tmp_path / "data").exists()


def test_what_is_needed_is_asked_for():
    ended = mains.fork("record", ["record", "--game=Pong"])
    assert_refused(ended, "give --game=GAME, --steps=N and --folder=DIR")


def test_one_shard_of_eleven_is_a_test_shard():
    names = [datasets.name_of(number) for number in range(33)]
    assert names[:3] == ["train_00000.npz", "test_00000.npz", "train_00001.npz"]
    assert names[12] == "test_00001.npz" and names[13] == "train_00011.npz"
    for split, count in (("train", 30), ("test", 3)):
        assert [n for n in names if n.startswith(split)] == [f"{split}_{i:05d}.npz" for i in range(count)]
    assert [datasets.count_for(steps, 60) for steps in (1, 120, 121)] == [2, 2, 3]


def test_returns_of_finished_episodes():
    reward = np.float32([[0, 0], [1, 10], [2, 20], [0, 0], [5, 50]])
    is_last = np.array([[False, False], [False, False], [True, False], [False, False], [True, False]])
    assert datasets.finished_returns(Step(None, None, reward, None, None, is_last)) == [3, 5]


def test_a_game_is_recorded_as_in_the_paper(tmp_path):
    pytest.importorskip("envpool")
    folder = tmp_path / "data"
    flags = ["--game=MsPacman", "--steps=1", "--envs=2", "--rows=12"]
    recorded(folder, *flags)
    steps, _ = datasets.read(folder, "test")
    assert steps[0].obs.shape == (13, 2, 200, 160, 3) and datasets.read_spec(folder).action == (18, True, 0, 17)
    assert datasets.read_spec(folder).action_repeat == 4
    assert steps[0].prev_action.dtype == np.int32 and steps[0].prev_action.max() > 8  # MsPacman's own actions are nine
    seed = int(np.random.SeedSequence([0, 1]).generate_state(1)[0]) % (2**31 - 2)
    env = envs.make("atari:MsPacman", 2, seed, size=(210, 160), colour=True, full_action_set=True)
    again = [env.reset()] + [env.step(action) for action in steps[0].prev_action[1:]]
    np.testing.assert_array_equal(np.stack([step.obs[:, :200] for step in again]), steps[0].obs)
    recorded(tmp_path / "small", *flags, "--size=80x64", "--actions=0,2,3,4,5")
    small = datasets.read(tmp_path / "small", "test")[0][0]
    assert small.obs.shape == (13, 2, 80, 64, 3) and datasets.read_spec(tmp_path / "small").action == (5, True, 0, 4)
    env = envs.make("atari:MsPacman", 2, seed, size=(84, 64), colour=True, actions=(0, 2, 3, 4, 5))
    again = [env.reset()] + [env.step(action) for action in small.prev_action[1:]]
    np.testing.assert_array_equal(np.stack([step.obs[:, :80] for step in again]), small.obs)
    assert set(np.unique(small.prev_action)) == set(range(5))
    assert_refused(record(folder, *flags, "--size=80x64"), "env.crop 10 -> 4")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder as that of a tiny run after its first iteration, untrained, on Pong, whose own actions are six."""
    pytest.importorskip("envpool")
    folder = tmp_path_factory.mktemp("run") / "run"
    asked = config.get_config("Pong,cpu")
    for flag in mains.SMALLER_WORLD_MODELS[1:]:
        name, _, value = flag.removeprefix("--config.").partition("=")
        asked.update_from_flattened_dict({name: ast.literal_eval(value)})
    settings = agents.read_settings(asked)
    agent = agents.make_agent(settings, envs.make("atari:Pong", 1, 0, **settings.env).spec)
    keys = jax.random.split(jax.random.key(0), 1)
    state = dict(world=jax.jit(jax.vmap(agent.learner.init))(keys), policy=jax.jit(jax.vmap(agent.policy.init))(keys))
    state |= dict(unfinished=np.zeros(1), counters={}, env={}, eval_env={})
    workdir.open_workdir(folder, asked.to_dict())
    workdir.close_workdir(folder)
    checkpoint.save(folder, 1, state)
    return folder


def test_a_trained_policy_is_recorded(run, tmp_path):
    folder = tmp_path / "data"
    flags = ["--game=Pong", f"--policy={run}", "--steps=1", "--envs=2", "--rows=60", "--size=20x16", "--seed=3"]
    recorded(folder, *flags)
    steps, _ = datasets.read(folder, "train")
    steps = steps[0]
    assert steps.obs.shape == (61, 2, 20, 16, 3) and steps.is_last.sum() == 4  # the run's episodes: 25 decisions

    restored = agents.load(run)
    seed = int(np.random.SeedSequence([3, 0]).generate_state(1)[0]) % (2**31 - 2)
    own = envs.make("atari:Pong", 2, seed, **restored.env)
    keys = jax.random.fold_in(jax.random.key(3), 0)[None]
    player = make_player(restored.actor, 2, explore=False)
    _, film = play_returns(own, player, alone(restored.params), keys, Stopwatch(), 26)  # its first episode
    for field in ("reward", "discount", "is_first", "is_last"):
        np.testing.assert_array_equal(getattr(film, field), getattr(steps, field)[:26], err_msg=field)
    used = atari_actions.places(atari_actions.own_set("Pong"), atari_actions.full_set("Pong"))
    np.testing.assert_array_equal(used[film.prev_action[1:]], steps.prev_action[1:26])
    again = envs.make("atari:Pong", 2, seed, size=(21, 16), colour=True, episode_steps=25)
    frames = [again.reset().obs] + [again.step(action).obs for action in film.prev_action[1:]]
    np.testing.assert_array_equal(np.stack(frames)[:, :, :20], steps.obs[:26])
    assert len(set(steps.prev_action.ravel().tolist())) > 3 and set(steps.prev_action.ravel().tolist()) <= set(used)

    chosen = ",".join(map(str, sorted(atari_actions.own_set("Pong"), reverse=True)))
    recorded(tmp_path / "chosen", *flags, f"--actions={chosen}")  # the same actions, otherwise numbered
    reordered = datasets.read(tmp_path / "chosen", "train")[0][0]
    np.testing.assert_array_equal(reordered.obs, steps.obs)
    np.testing.assert_array_equal(5 - reordered.prev_action[1:26], film.prev_action[1:])
    assert_refused(record(folder, *flags, "--actions=0,3,4"), "plays [1, 11, 12] too")

    assert_refused(record(folder, *flags, "--policy=random"), "policy.name smaller_world_models -> random")
    assert_refused(record(folder, *flags, "--game=Breakout"), "plays atari:Pong, --game=Breakout is atari:Breakout")
    assert_refused(record(folder, *flags, "--member=1"), "--member=1: the run has 1, counted from 0")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}")
    assert_refused(record(folder, *flags, f"--policy={foreign}"), "a run of an experiment that trains no agent")
