"""Small agents that query a small model, and games for them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from wmjax.agents import i2a
from wmjax.ops.axes import fold
from wmjax.types import ActionSpec, Array, EnvSpec, JaxEnv, Step, WorldModel, image_of

ACTIONS, ROWS, STEPS = 4, 3, 2
IMAGE = jax.ShapeDtypeStruct((4, 6, 1), np.uint8)
SPEC = EnvSpec(IMAGE, ActionSpec(ACTIONS, True, 0, ACTIONS - 1))
SIZES = dict(kernels=(3,), strides=(1,), widths=(4,), units=8, encoder_kernel=2, encoder_widths=(4,), encoder_units=6)
SIZES |= dict(lstm_units=5, policy_widths=(3,), policy_units=6, rollouts=ACTIONS, horizon=2)


@struct.dataclass
class Grid:
    cells: Array  # float32 [B, 2, 3, 1]
    reward: Array  # float32 [B]


def make_model(noise=0.1, jump=1):
    """Cells are an image's brightness in blocks; an action adds its share of `effect` to them, with noise.

    params: dict(effect [jump * A, 2, 3], scale []); the reward is scale * the sum of the cells.
    """

    def initial(params, batch):
        return Grid(jnp.zeros((batch, 2, 3, 1)), jnp.zeros(batch))

    def encode(params, obs):
        image = image_of(obs).astype(jnp.float32) / 255
        return image.reshape(-1, 2, 2, 3, 2, 1).mean(axis=(2, 4))

    def observe(params, key, state, prev_action, embed, is_first):
        return Grid(embed, jnp.zeros(len(embed))), None

    def imagine(params, key, state, action):
        moved = state.cells + jnp.einsum("ba,axy->bxy", action, params["effect"])[..., None]
        cells = jnp.tanh(moved + noise * jax.random.normal(key, moved.shape))
        return Grid(cells, params["scale"] * cells.sum(axis=(1, 2, 3)))

    def features(params, state):
        return state.cells

    def reward(params, state):
        return state.reward

    def discount(params, state):
        return jnp.ones_like(state.reward)

    return WorldModel(initial, encode, observe, imagine, features, reward, discount, None, (2, 3, 1))


def make_params(jump=1):
    """Parameters of `make_model`."""
    return dict(effect=jax.random.normal(jax.random.key(9), (jump * ACTIONS, 2, 3)), scale=jnp.float32(0.5))


def begin(params, embeds):
    """The state of three images: half the newest one, the rest of those before it."""
    weights = jnp.array([0.2, 0.3, 0.5])
    cells = jnp.einsum("btxyc,t->bxyc", embeds[:, :: (embeds.shape[1] - 1) // 2], weights)
    return Grid(cells, jnp.zeros(len(cells)))


def make_query(model=None, jump=1, **parts):
    """A Query of `make_model`."""
    return i2a.Query(model or make_model(jump=jump), 1 + 2 * jump, begin, jump, **parts)


def make_agent(policy, query=None, spec=SPEC, **settings):
    """(I2AConfig, Agent)."""
    config = i2a.I2AConfig(rollout_policy=policy, **SIZES | settings)
    return config, i2a.make_agent(config, spec, None if policy == "none" else query or make_query())


def make_unroll(agent, params, seed=0, rows=ROWS, count=STEPS, query=None, **fields):
    """An Unroll of noise as the agent sees it, from each row's first image on. params: dict(model=, agent=)."""
    rng = np.random.default_rng(seed)
    shape = (count + 1, rows)
    none = np.zeros(shape, bool)
    steps = Step(
        prev_action=rng.integers(0, ACTIONS, shape, dtype=np.int32),
        obs=rng.integers(0, 256, (*shape, *IMAGE.shape), dtype=np.uint8),
        reward=rng.normal(size=shape).astype(np.float32),
        discount=np.ones(shape, np.float32),
        is_first=none | (np.arange(count + 1) == 0)[:, None],
        is_last=none,
    ).replace(**fields)
    return i2a.Unroll(params["model"], steps, look_at(agent, params, steps))


def look_at(agent, params, steps):
    """What the agent sees at every one of Step [T, E], as it comes."""

    def look(carry, inputs):
        return agent.look(params, inputs[0], carry, inputs[1])

    keys = jax.random.split(jax.random.key(3), len(steps.reward))
    return jax.lax.scan(look, agent.initial(params, steps.reward.shape[1]), (keys, steps))[1]


def make_bandit():
    """A bandit whose image is noise: which action pays 1 is in the observation's state alone, anew at every step."""
    spec = EnvSpec(dict(image=IMAGE, answer=jax.ShapeDtypeStruct((), np.int32)), SPEC.action)

    def arrive(key, prev_action, reward, first):
        image_key, answer_key = jax.random.split(key)
        rows = len(reward)
        image = jax.random.randint(image_key, (rows, *IMAGE.shape), 0, 256).astype(jnp.uint8)
        answer = jax.random.randint(answer_key, (rows,), 0, ACTIONS)
        none = jnp.zeros(rows, bool)
        discount = jnp.ones(rows) if first else jnp.where(none, 0.0, 1.0)  # the latter of a weak type
        return answer, Step(prev_action, dict(image=image, answer=answer), reward, discount, none | first, none)

    def reset(key, rows):
        return arrive(key, jnp.zeros(rows, jnp.int32), jnp.zeros(rows), True)

    def step(key, state, action):
        return arrive(key, action, (action == state).astype(jnp.float32), False)

    return JaxEnv(spec, reset, step)


def make_oracle():
    """A Query of the bandit's own rules: only what an imagined action pays is seen, in the reward and the features."""

    def answers(params, embeds):
        return dict(answer=embeds[:, -1], paid=jnp.zeros(embeds.shape[0]))

    def imagine(params, key, state, action):
        return state | dict(paid=jnp.take_along_axis(action, state["answer"][:, None], axis=1)[:, 0])

    def features(params, state):
        return jnp.broadcast_to(state["paid"][:, None, None, None], (len(state["paid"]), 2, 3, 1))

    model = make_model()._replace(
        encode=lambda params, obs: obs["answer"],
        imagine=imagine,
        features=features,
        reward=lambda params, state: state["paid"],
    )
    return i2a.Query(model, 1, answers)


def flat(unroll):
    """Images of an Unroll, all rows of all steps."""
    return fold(image_of(unroll.steps.obs))


def params_of(agent, jump=1):
    """Parameters of the model and of an agent."""
    return dict(model=make_params(jump), agent=agent.init(jax.random.key(0)))


def fold_query(value):
    """A Query that trains its model's `effect`, as the modulation agent trains a prior."""
    return make_query(fresh=lambda key: dict(effect=value), merge=lambda params, part: params | part)
