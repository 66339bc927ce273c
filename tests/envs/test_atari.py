"""Atari games against envpool alone: the life of an episode, stacks, options, snapshots and refusals."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.steps import assert_equal
from wmjax import envs
from wmjax.envs import atari, atari_actions, gl
from wmjax.envs.seeds import row_seeds
from wmjax.ops import frames
from wmjax.types import UsageError

PAPER_GAMES = """Alien Amidar Assault Asterix Asteroids Atlantis BankHeist BattleZone BeamRider Bowling Boxing Breakout
ChopperCommand CrazyClimber DemonAttack FishingDerby Freeway Frostbite Gopher Gravitar Hero IceHockey Jamesbond Kangaroo
Krull KungFuMaster MsPacman NameThisGame Pong PrivateEye Qbert Riverraid RoadRunner Seaquest UpNDown YarsRevenge"""


def play(env, length, seed=0):
    """`length` random decisions; returns all their Steps."""
    rng = np.random.default_rng(seed)
    rows = len(env._rows)
    return [env.step(rng.integers(0, env.spec.action.size, rows)) for _ in range(length)]


def envpool_alone(game, num_envs, seed, **options):
    envpool = gl.import_envpool()
    options = dict(img_height=96, img_width=96, stack_num=1, gray_scale=True) | options
    return envpool.make_gym(f"{game}-v5", num_envs=num_envs, seed=row_seeds(seed, num_envs), **options)


def test_equals_envpool():
    """The same seed and actions: envpool's own frames and rewards, with the episode's end told apart from the limit."""
    env = envs.make("atari:Breakout", 3, seed=5, episode_steps=200)
    pool = envpool_alone("Breakout", 3, 5, max_episode_steps=200)
    first = env.reset()
    np.testing.assert_array_equal(first.obs, np.moveaxis(pool.reset()[0], 1, -1))
    assert first.is_first.all() and not first.is_last.any() and first.obs.shape == (3, 96, 96, 1)
    rng, ended = np.random.default_rng(0), np.zeros(3, bool)
    seen = dict(terminated=0, truncated=0)
    for _ in range(700):
        action = rng.integers(0, 4, 3)
        step = env.step(action)
        obs, reward, terminated, truncated, _ = pool.step(action.astype(np.int32))
        np.testing.assert_array_equal(step.obs, np.moveaxis(obs, 1, -1))
        np.testing.assert_array_equal(step.is_first, ended)
        np.testing.assert_array_equal(step.reward, np.where(ended, 0, reward))
        np.testing.assert_array_equal(step.prev_action, np.where(ended, 0, action))
        np.testing.assert_array_equal(step.discount, np.where(terminated & ~ended, 0, 1))
        ended = terminated | truncated
        np.testing.assert_array_equal(step.is_last, ended)
        seen["terminated"] += terminated.sum()
        seen["truncated"] += (truncated & ~terminated).sum()
    assert min(seen.values()) > 2, seen
    env.close()


def test_time_limit_keeps_the_discount():
    env = envs.make("atari:Pong", 2, seed=0, episode_steps=20)
    env.reset()
    step = play(env, 20)[-1]
    assert step.is_last.all() and (step.discount == 1).all()
    assert env.spec.time_limit == 20
    assert envs.make("atari:Pong", 1, seed=0).spec.time_limit == 27_000


def test_losing_a_life_ends_an_episode_on_demand():
    whole = envs.make("atari:Breakout", 2, seed=1)
    lives = envs.make("atari:Breakout", 2, seed=1, life_loss=True)
    ends = []
    for env in (whole, lives):
        env.reset()
        steps = play(env, 400)
        ends.append(sum(step.is_last.sum() for step in steps))
        assert all((step.discount[step.is_last] == 0).all() for step in steps)
    assert ends[1] >= 3 * ends[0] > 0
    short = envs.make("atari:Breakout", 1, seed=1, life_loss=True, episode_steps=15)  # shorter than a life
    short.reset()
    step = play(short, 15)[-1]
    assert step.is_last.all() and step.discount.all()


@pytest.mark.parametrize("colour", [False, True])
def test_stack_equals_stacked_single_frames(colour):
    """envpool's stacks are those of wmjax.ops.frames, over the ends of episodes too."""
    options = dict(colour=colour, size=(40, 30), episode_steps=9)
    single, stacked = envs.make("atari:Pong", 2, 3, **options), envs.make("atari:Pong", 2, 3, stack=4, **options)
    steps, wide = [single.reset()], [stacked.reset()]
    steps, wide = steps + play(single, 25), wide + play(stacked, 25)
    obs, is_first = (np.stack([getattr(step, name) for step in steps], axis=1) for name in ("obs", "is_first"))
    assert obs.shape[2:] == single.spec.obs_shape == (40, 30, 3 if colour else 1)
    assert stacked.spec.obs_shape == (40, 30, 12 if colour else 4)
    expected = frames.stack(jnp.array(obs), jnp.array(is_first), 4)
    np.testing.assert_array_equal(np.stack([step.obs for step in wide], axis=1), expected)


@pytest.mark.parametrize("colour", [False, True])
def test_crop_cuts_the_lower_rows_away(colour):
    options = dict(size=(42, 30), colour=colour, stack=2, episode_steps=9)
    whole, cut = envs.make("atari:Pong", 2, 3, **options), envs.make("atari:Pong", 2, 3, crop=2, **options)
    assert cut.spec.obs_shape == (40, *whole.spec.obs_shape[1:]) and cut.reset().obs.flags.c_contiguous
    whole.reset()
    for step, other in zip(play(whole, 25), play(cut, 25), strict=True):
        assert_equal(step.replace(obs=step.obs[:, :40]), other)
    with pytest.raises(UsageError, match="another environment"):
        whole.restore(cut.snapshot())


def test_steps_are_fresh_arrays():
    env = envs.make("atari:Pong", 2, seed=0)
    steps = [env.reset()]
    copies = []
    for _ in range(30):
        copies.append(np.array(steps[-1].obs))
        steps += play(env, 1)
    for step, copy in zip(steps, copies, strict=False):
        np.testing.assert_array_equal(step.obs, copy)


@pytest.mark.parametrize(
    "options",
    [{}, {"life_loss": True}, {"sticky": 0.25}, {"colour": True, "stack": 2}, {"crop": 5, "actions": (3, 0, 12, 4)}],
)
def test_restore_continues_bit_for_bit(options):
    """Rows of different ages, after several episodes: right after a reset, a step later, more episodes later."""
    options = dict(episode_steps=60, size=32) | options
    env, other = (envs.make("atari:Breakout", 3, 2, **options) for _ in range(2))
    env.reset()
    play(env, 70, seed=7)
    kept = []
    for length in (0, 1, 95):
        current = play(env, length)[-1] if length else env.reset()
        kept.append((current, env.snapshot(), play(env, 25, seed=9)))
    for current, snapshot, expected in [*kept, kept[1]]:  # into an environment that has gone on, at last backwards
        assert_equal(other.restore(snapshot), current)
        for step, wanted in zip(play(other, 25, seed=9), expected, strict=True):
            assert_equal(step, wanted)


def test_restore_after_an_ended_episode():
    env = envs.make("atari:Pong", 2, 0, episode_steps=10)
    env.reset()
    current = play(env, 10)[-1]
    kept, following = env.snapshot(), play(env, 1)[-1]
    assert current.is_last.all() and following.is_first.all()
    other = envs.make("atari:Pong", 2, 0, episode_steps=10)
    assert_equal(other.restore(kept), current)
    assert_equal(play(other, 1)[-1], following)


def test_a_snapshot_holds_the_present_game_alone():
    env = envs.make("atari:Pong", 1, 0, episode_steps=50)
    env.reset()
    play(env, 60)
    assert len(env.snapshot()["history"]) == 10  # the start and nine decisions
    assert env.snapshot()["skipped"] == 1


def test_all_games_of_the_paper_are_there():
    assert set(PAPER_GAMES.split()) <= set(atari.games())
    assert len(PAPER_GAMES.split()) == 36


def test_action_sets():
    assert envs.make("atari:Pong", 1, 0).spec.action == (6, True, 0, 5)
    assert envs.make("atari:Pong", 1, 0, full_action_set=True).spec.action == (18, True, 0, 17)


def in_full_set(game):
    """The number that each action of a game's own set has in its full set."""
    return atari_actions.places(atari_actions.own_set(game), atari_actions.full_set(game))


def test_games_have_as_many_actions_as_the_joystick_says():
    for game in [games.split()[-1] for games in atari_actions.USED.values()] + ["Alien", "Boxing"]:
        own = in_full_set(game)
        assert len(own) == envs.make(f"atari:{game}", 1, 0, size=8).spec.action.size, game
        assert (np.diff(own) > 0).all(), game
    named = " ".join(atari_actions.USED.values()).split()
    assert len(set(named)) == len(named) and set(named) <= set(atari.games())


@pytest.mark.parametrize("game", ["Freeway", "Skiing", "LostLuggage", "Atlantis", "MsPacman", "Asteroids"])
def test_own_actions_do_in_the_full_set_what_the_joystick_says(game):
    own, full = (
        envs.make(f"atari:{game}", 2, 3, size=84),
        envs.make(f"atari:{game}", 2, 3, size=84, full_action_set=True),
    )
    assert_equal(own.reset(), full.reset())
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.integers(0, own.spec.action.size, 2)
        step, other = own.step(action), full.step(in_full_set(game)[action])
        assert_equal(step.replace(prev_action=other.prev_action), other)


@pytest.mark.parametrize(("game", "actions"), [("MsPacman", (4, 0, 2, 13)), ("Skiing", (9, 4, 0))])
def test_chosen_actions_do_what_the_joystick_says(game, actions):
    """Numbered in the order in which they are given, among them such as the game's own set lacks."""
    own = envs.make(f"atari:{game}", 2, 3, size=84, actions=list(actions))
    full = envs.make(f"atari:{game}", 2, 3, size=84, full_action_set=True)
    assert own.spec.action == (len(actions), True, 0, len(actions) - 1)
    assert_equal(own.reset(), full.reset())
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.integers(0, len(actions), 2)
        number = np.array([atari_actions.full_set(game).index(actions[each]) for each in action])
        step, other = own.step(action), full.step(number)
        np.testing.assert_array_equal(step.prev_action, action)
        assert_equal(step.replace(prev_action=other.prev_action), other)
    with pytest.raises(UsageError, match="out of range"):
        own.step(np.array([0, len(actions)]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("atari:Pong", {"size": (20, 96), "crop": 13}, "crop=13 is not allowed: expected an integer in [0, 12]"),
        ("atari:Pongg", {}, "unknown atari game 'Pongg'. Did you mean Pong"),
        ("atari:pong", {}, "Did you mean Pong? "),
        ("atari:PONG", {}, "Did you mean Pong? "),
        ("atari:PongNoFrameskip-v4", {}, "Did you mean Pong? "),
        ("atari:PongDeterministic-v4", {}, "Did you mean Pong? "),
        ("atari:Pong-ramNoFrameskip-v4", {}, "Did you mean Pong? "),
        ("atari:ALE/Pong-v5", {}, "Did you mean Pong? "),
        ("atari:atari_pong", {}, "Did you mean Pong? "),
        ("atari:atari_ms_pacman", {}, "Did you mean MsPacman? "),
        ("atari:space invaders", {}, "Did you mean SpaceInvaders? "),
        ("atari:Pong", {"sizes": 96}, "unknown atari option 'sizes'. Did you mean size"),
        ("atari:Pong", {"size": 4}, "size=4 is not allowed"),
        ("atari:Pong", {"size": (96, 96, 3)}, "expected one number or two"),
        ("atari:Pong", {"stack": 0}, "stack=0 is not allowed"),
        ("atari:Pong", {"colour": 1}, "colour=1 is not allowed"),
        ("atari:Pong", {"sticky": 1.0}, "sticky=1.0 is not allowed"),
        ("atari:Pong", {"noops": 0}, "noops=0 is not allowed"),
        ("atari:Pong", {"actions": (0, 18)}, "actions=(0, 18) is not allowed: expected different numbers of Pong's"),
        ("atari:Pong", {"actions": (0, 1, 0)}, "actions=(0, 1, 0) is not allowed"),
        ("atari:Pong", {"actions": ()}, "actions=() is not allowed"),
        ("atari:Pong", {"actions": 5}, "actions=5 is not allowed"),
        ("atari:Pong", {"actions": (True,)}, "actions=(True,) is not allowed"),
        ("atari:Skiing", {"actions": (0, 1)}, "Skiing's actions, of (0, 2, 3, 4, 5, 6, 7, 8, 9)"),
        ("atari:Pong", {"actions": (0, 2), "full_action_set": True}, "two action sets"),
        ("atari:Pong", {"episode_steps": 27_001}, "episode_steps=27001 is not allowed"),
    ],
)
def test_refuses_in_one_line(name, options, message):
    with pytest.raises(UsageError) as error:
        envs.make(name, 1, 0, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_refuses_actions_and_foreign_snapshots():
    env = envs.make("atari:Pong", 2, 0)
    with pytest.raises(UsageError, match="before reset"):
        env.step(np.zeros(2, int))
    env.reset()
    with pytest.raises(UsageError, match="out of range"):
        env.step(np.array([0, 6]))
    with pytest.raises(UsageError, match="expected integers"):
        env.step(np.zeros(2))
    with pytest.raises(UsageError, match="another environment"):
        envs.make("atari:Pong", 2, 1).restore(env.snapshot())
