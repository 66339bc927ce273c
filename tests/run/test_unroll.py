"""Unrolls in both loops: what follows what, and that nothing compiles twice."""

import jax
import jax.numpy as jnp
import numpy as np

from tests import tiny_i2a
from wmjax.envs.jax_env import JaxVecEnv
from wmjax.run import devices, unroll
from wmjax.run.members import member
from wmjax.run.stopwatch import Stopwatch
from wmjax.types import ActionSpec, JaxEnv

ROWS, COUNT = 3, 4
KEY, KEYS = jax.random.key(0), jax.random.split(jax.random.key(1), 3)


def draw(key, rows):
    return jax.random.randint(key, (rows,), 0, 2**20)


def make_env():
    """The bandit with more actions, of which its own are the lowest digit; it shows what its key draws."""
    bandit, most = tiny_i2a.make_bandit(), tiny_i2a.ACTIONS * 2**20
    obs = bandit.spec.obs | dict(drawn=jax.ShapeDtypeStruct((), np.int32))
    spec = bandit.spec._replace(obs=obs, action=ActionSpec(most, True, 0, most - 1))

    def show(key, state, step):
        return state, step.replace(obs=step.obs | dict(drawn=draw(key, len(step.reward))))

    def step(key, state, action):
        return show(key, *bandit.step(key, state, action))

    return JaxEnv(spec, lambda key, rows: show(key, *bandit.reset(key, rows)), step)


def counting_player():
    """Its carry counts arrivals, it sees the count, the reward and a draw, and plays the count modulo the actions.

    What it draws to choose is in the action too, in higher digits.
    """

    def look(params, key, carry, step):
        return carry + 1, (carry, step.reward, draw(key, ROWS))

    def choose(params, key, step, seen):
        return (params + seen[0]) % tiny_i2a.ACTIONS + tiny_i2a.ACTIONS * draw(key, ROWS), ()

    return unroll.Player(lambda params, rows: jnp.zeros(rows, jnp.int32), look, choose)


def check(first, second):
    """Of two unrolls in a row, [Step, seen] each: decisions follow each other, and one begins where the other ended.

    Nobody draws what another drew: a model that imagined by the environment's key would see the future.
    """
    steps = jax.tree.map(lambda x, y: np.concatenate([x, y[1:]]), first, second)
    arrivals, (count, reward, looked) = steps
    chosen, played = np.divmod(np.asarray(arrivals.prev_action[1:]), tiny_i2a.ACTIONS)
    assert arrivals.reward.shape == (2 * COUNT + 1, ROWS)
    assert np.array_equal(count, np.arange(2 * COUNT + 1)[:, None] + np.zeros((1, ROWS), int))
    assert np.array_equal(reward, arrivals.reward)
    assert np.array_equal(played, (5 + count[:-1]) % tiny_i2a.ACTIONS)
    drawn = np.concatenate([chosen, looked, arrivals.obs["drawn"][1:]])
    assert len(np.unique(drawn)) == drawn.size
    jax.tree.map(np.testing.assert_array_equal, member(first, -1), member(second, 0))
    answer = arrivals.obs["answer"]
    assert np.array_equal(arrivals.reward[1:], arrivals.prev_action[1:] == answer[:-1])


def test_unrolls_follow_each_other():
    env, player, params = make_env(), counting_player(), jnp.int32(5)
    playing = jax.jit(lambda: unroll.begin(env, player, params, KEY, ROWS))()
    go = jax.jit(lambda key, playing: unroll.unroll(env, player, params, key, playing, COUNT))
    playing, *first = go(KEYS[0], playing)
    playing, *second = go(KEYS[1], playing)
    check(first, second)
    assert go._cache_size() == 1


def test_unrolls_from_the_host_are_alike_and_compile_once():
    params = jnp.int32(5)
    env, mesh = JaxVecEnv(make_env(), list(range(ROWS)), "bandit"), devices.make_mesh("1")
    step = env.reset()
    player = unroll.compile_player(counting_player(), params, step, mesh)
    playing = player.begin_at(params, KEY, jax.device_put(step, player.sharding))
    playing, *first = unroll.from_host(env, player, params, KEYS[0], playing, COUNT, Stopwatch())
    sizes = [function._cache_size() for function in player[:-1]]
    playing, *second = unroll.from_host(env, player, params, KEYS[1], playing, COUNT, Stopwatch())
    check(first, second)
    assert [function._cache_size() for function in player[:-1]] == sizes == [1] * 4
