"""A user's own environments in pure JAX, for tests: a point on a line that is pushed, and faulty ones."""

import jax
import jax.numpy as jnp
import numpy as np

from wmjax.types import ActionSpec, EnvSpec, JaxEnv, Step

SIZE, LIMIT, EDGE = 16, 5, 2.0


def make_env(seed):
    """Begins in [-1, 1], moves by the action in [-1, 1] and a little noise, ends truly beyond EDGE; shows its state."""
    image = jax.ShapeDtypeStruct((SIZE, SIZE, 1), np.uint8)
    own = dict(place=jax.ShapeDtypeStruct((), np.float32), steps=jax.ShapeDtypeStruct((), np.int32))
    own |= dict(is_last=jax.ShapeDtypeStruct((), bool))

    def see(state):
        middle = jnp.round((state["place"] / EDGE + 1) / 2 * (SIZE - 1))[:, None, None, None]
        image = jnp.where(jnp.arange(SIZE)[None, None, :, None] == middle, jnp.uint8(255), jnp.uint8(0))
        return dict(image=jnp.broadcast_to(image, (len(middle), SIZE, SIZE, 1)), state=state)

    def reset(key, rows):
        zeros = jnp.zeros(rows)
        place = jax.random.uniform(key, (rows,), minval=-1, maxval=1)
        state = dict(place=place, steps=jnp.zeros(rows, jnp.int32), is_last=zeros > 0)
        return state, Step(jnp.zeros((rows, 1)), see(state), zeros, zeros + 1, zeros == 0, zeros > 0)

    def step(key, state, action):
        keys, first = jax.random.split(key), state["is_last"]
        fresh, _ = reset(keys[0], len(first))
        place = state["place"] + jnp.clip(action[:, 0], -1, 1) + 0.1 * jax.random.normal(keys[1], first.shape)
        steps = state["steps"] + 1
        fell = abs(place) > EDGE
        moved = dict(place=place, steps=steps, is_last=fell | (steps == LIMIT))
        state = jax.tree.map(lambda x, y: jnp.where(first, x, y), fresh, moved)
        reward, discount = jnp.where(first, 0, -abs(place)), jnp.where(first | ~fell, 1.0, 0.0)
        action = jnp.where(first[:, None], 0, action)
        return state, Step(action, see(state), reward, discount, first, state["is_last"])

    return JaxEnv(EnvSpec(dict(image=image, state=own), ActionSpec(1, False, -1.0, 1.0), 1, LIMIT), reset, step)


def make_discrete(seed):
    """Its actions 0, 1, 2 are pushes of -1, 0, 1."""
    env = make_env(seed)

    def reset(key, rows):
        state, first = env.reset(key, rows)
        return state, first.replace(prev_action=jnp.zeros(rows, jnp.int32))

    def step(key, state, action):
        after, arrival = env.step(key, state, action[:, None] - 1.0)
        return after, arrival.replace(prev_action=jnp.where(state["is_last"], 0, action))

    return JaxEnv(env.spec._replace(action=ActionSpec(3, True, 0, 2)), reset, step)


def make_wrong(seed):
    """Its rewards are integers."""
    env = make_env(seed)

    def step(key, state, action):
        state, arrival = env.step(key, state, action)
        return state, arrival.replace(reward=arrival.reward.astype(jnp.int32))

    return env._replace(step=step)


def make_forgetful(seed):
    """Its step returns another state than its reset."""
    env = make_env(seed)
    return env._replace(step=lambda key, state, action: (None, env.step(key, state, action)[1]))


def make_float_images(seed):
    """Images are uint8 until inside jit."""
    return with_obs(dict(image=jax.ShapeDtypeStruct((SIZE, SIZE, 1), np.float32)))


def make_flat_images(seed):
    """Without channels."""
    return with_obs(dict(image=jax.ShapeDtypeStruct((SIZE, SIZE), np.uint8)))


def make_without_images(seed):
    """Its state alone."""
    return with_obs(dict(state=jax.ShapeDtypeStruct((), np.float32)))


def make_without_spec(seed):
    """What it shows in place of a spec."""
    env = make_env(seed)
    return env._replace(spec=env.spec.obs)


def with_obs(obs):
    """The walk whose spec says that it shows something else."""
    env = make_env(0)
    return env._replace(spec=env.spec._replace(obs=obs))
