"""Acting on imagined rollouts (Weber et al. 2017; Buesing et al. 2018, section 3): look, then decide.

    newest images - begin - s - branch - K rollouts of H imagined steps - LSTM, last step first - K codes -+
    newest image  - convolutions ---------------------------------------------------------------------------+- logits, V

`look` returns what `decide` needs, which is kept for learning: the rollouts; or, where the policy gradient flows back
through the rollouts, only the states that they begin in, and `decide` rolls them out.

params: dict(model=..., agent=...): of the frozen model, and of the agent, a dict by module name in which "model" is the
part of the model's parameters that the agent trains.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from wmjax import imagine
from wmjax.agents.i2a.config import TRAINED
from wmjax.nets import i2a as nets
from wmjax.nets.lstm import LSTM
from wmjax.ops.axes import fold, time_first, where_rows
from wmjax.ops.batching import vmap_or_map
from wmjax.ops.frames import unit_pixels
from wmjax.types import Actor, Array, UsageError, WorldModel, image_of


class Query(NamedTuple):
    """How a world model is asked. fresh and merge: of the part of its parameters that the agent trains."""

    model: WorldModel  # features are grids, [B, X, Y, C]
    images: int  # newest embeddings of which the state at a decision is made
    begin: Callable[..., Any]  # (params, embeddings [B, images, ...]) -> state
    jump: int = 1  # decisions in a step of the model, whose actions are as many side by side
    fresh: Callable[..., dict] = lambda key: {}  # (key) -> the part, as it begins
    merge: Callable[..., Any] = lambda params, part: params  # (params, part) -> the model's parameters
    policy_sees: Callable[[Array], Array] = lambda features: features  # of features [N, X, Y, C], the rollout policy


@struct.dataclass
class Start:
    """Where rollouts begin, and their randomness."""

    state: Any  # of the model, B rows
    key: Array


@struct.dataclass
class Imagined:
    """What K rollouts of H steps showed to each of B rows."""

    start: Array  # float32 [B, X, Y, C], features of the state at the decision
    features: Array  # float32 [H, B, K, X, Y, C]
    reward: Array  # float32 [H, B, K], predicted
    action: Array  # float32 [H, B, K, A], one-hot, or probabilities of a learned rollout policy


class Decided(NamedTuple):
    """What an agent decided at T steps of B rows, time first."""

    logits: Array  # float32 [T, B, A]
    value: Array  # float32 [T, B]
    imagined: Imagined | None  # of every step, [T, ...]


class Agent(NamedTuple):
    init: Callable[..., dict]  # (key) -> its own parameters
    initial: Callable[..., Any]  # (params, B) -> carry
    look: Callable[..., tuple[Any, Any]]  # (params, key, carry, Step [B]) -> (carry, seen)
    decide: Callable[..., Decided]  # (params, images uint8 [T, B, X, Y, C], seen [T, ...]) -> Decided
    policy_logits: Callable[..., Array] | None  # (agent's params, features [N, X, Y, C]) -> [N, A]: of the rollouts


def make_agent(config, env_spec, query=None):
    """The Agent of an I2AConfig. query: None where there are no rollouts.

    Raises: UsageError for images that are smaller than a kernel of the model-free path.
    """
    check_trunk(config, env_spec.obs_shape)
    modules = make_modules(config, env_spec, query.model.feature_shape if query else env_spec.obs_shape)
    inputs = make_inputs(config, env_spec, query)

    def init(key):
        names = [*inputs, "model"]
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        params = {name: modules[name].init(keys[name], *inputs[name]) for name in inputs}
        return params | dict(model=query.fresh(keys["model"]) if query else {})

    def apply(params, name, *args):
        return modules[name].apply(params[name], *args)

    if query:
        look, decide, policy_logits = make_model_based(config, env_spec.action.size, query, apply)
    else:
        look, decide, policy_logits = make_model_free(apply)

    def initial(params, rows):
        if query is None:
            return ()
        embed = jax.eval_shape(query.model.encode, params["model"], rows_of(env_spec.obs, rows))
        return jax.tree.map(lambda x: jnp.zeros((rows, query.images, *x.shape[1:]), x.dtype), embed)

    return Agent(init, initial, look, decide, policy_logits)


def check_trunk(config, shape):
    """Raises UsageError unless the convolutions of the model-free path, which do not pad, fit images [X, Y, C]."""
    sides = shape[:2]
    for kernel, stride in zip(config.kernels, config.strides, strict=True):
        if min(sides) < kernel:
            raise UsageError(
                f"agent kernels {config.kernels} with strides {config.strides}: too large for images of "
                f"{shape[0]} x {shape[1]}"
            )
        sides = [(side - kernel) // stride + 1 for side in sides]


def rows_of(obs, rows):
    """Shapes of `rows` observations. obs: of one, as in an EnvSpec."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype), obs)


def make_modules(config, env_spec, imagined):
    """The flax modules of one time step, by the name of their parameters. imagined: shape of features [X, Y, C]."""
    actions = env_spec.action.size
    sizes = (config.kernels, config.strides)
    strided = config.encoder_strided if imagined[:2] == env_spec.obs_shape[:2] else ()
    encoder = nets.StepEncoder(config.encoder_kernel, config.encoder_widths, config.encoder_units, strided)
    if config.pixels:  # appendix B.2: as the model-free path, but for the width of its last two convolutions
        body = nets.Trunk(*sizes, (*config.widths[:-2], *config.policy_widths), config.units)
    else:
        body = nets.StepEncoder(config.encoder_kernel, config.policy_widths, config.policy_units)
    return dict(
        trunk=nets.Trunk(*sizes, config.widths, config.units),
        encoder=encoder,
        lstm=LSTM(config.lstm_units),
        rollout_policy=nets.RolloutPolicy(actions, body),
        heads=nets.Heads(actions),
    )


def make_inputs(config, env_spec, query):
    """What each module that is used is called with, rows of zeros, by its name."""
    image = jnp.zeros((1, *env_spec.obs_shape))
    codes = config.rollouts * config.lstm_units if query else 0
    inputs = dict(trunk=[image], heads=[jnp.zeros((1, config.units + codes))])
    if query:
        features, memory = jnp.zeros((1, *query.model.feature_shape)), jnp.zeros((1, config.lstm_units))
        rewards = [jnp.zeros((1, 1))] if config.sees_rewards else []
        inputs |= dict(encoder=[features, *rewards], lstm=[memory, memory, jnp.zeros((1, config.encoder_units))])
        if config.rollout_policy in TRAINED:
            inputs["rollout_policy"] = [query.policy_sees(features)]
    return inputs


def read_out(apply, agent, images, *codes):
    """(logits [T, B, A], value [T, B]) of images [T, B, ...] and of what rollouts say, [B * T, F] each.

    Rows come before time where both are one axis: so it stays split where rows are split over devices.
    """
    x = jnp.concatenate([apply(agent, "trunk", unit_pixels(fold(time_first(images)))), *codes], axis=-1)
    logits, value = apply(agent, "heads", x)
    rows = images.shape[1::-1]
    return time_first(logits.reshape(*rows, -1)), time_first(value.reshape(rows))


def make_model_free(apply):
    """(look, decide, policy_logits) of an agent without a model: there are no rollouts."""

    def look(params, key, carry, step):
        return (), ()

    def decide(params, images, seen):
        logits, value = read_out(apply, params["agent"], images)
        return Decided(logits, value, None)

    return look, decide, None


def make_model_based(config, actions, query, apply):
    """(look, decide, policy_logits) of an agent that rolls out its model."""
    model = query.model
    differentiated = config.rollout_policy == "learned" or config.modulated  # then `decide` rolls out, not `look`

    def policy_logits(agent, features):
        return apply(agent, "rollout_policy", query.policy_sees(features))

    roll_out = make_roll_out(config, actions, query, make_rollout_policy(config, actions, query.jump, policy_logits))
    encode = make_rollout_encoder(config, model.feature_shape, apply)

    def look(params, key, carry, step):
        embed = model.encode(params["model"], step.obs)
        newest = jax.tree.map(lambda old, new: jnp.concatenate([old[:, 1:], new[:, None]], axis=1), carry, embed)
        first = jax.tree.map(lambda old, new: jnp.broadcast_to(new[:, None], old.shape), carry, embed)
        carry = where_rows(step.is_first, first, newest)
        start = Start(query.begin(params["model"], carry), key)
        return carry, start if differentiated else roll_out(params, start)

    def decide(params, images, seen):
        if differentiated:
            seen = vmap_or_map(jax.checkpoint(lambda start: roll_out(params, start)))(seen)
        logits, value = read_out(apply, params["agent"], images, encode(params["agent"], seen))
        return Decided(logits, value, seen)

    return look, decide, policy_logits if config.rollout_policy in TRAINED else None


def make_rollout_policy(config, actions, jump, policy_logits):
    """The policy of the rollouts, (agent, key, features [N, X, Y, C]) -> the model's actions, float32 [N, jump * A]."""

    def policy(agent, key, features):
        rows = features.shape[0]
        if config.rollout_policy == "learned":
            return jnp.tile(jax.nn.softmax(policy_logits(agent, features)), (1, jump))
        logits = jnp.zeros((rows, actions))
        if config.rollout_policy == "distilled":
            logits = policy_logits(agent, features)
        draws = jump if config.jump_actions == "independent" else 1
        drawn = jax.random.categorical(key, logits[:, None], shape=(rows, draws))
        chosen = jax.nn.one_hot(drawn, actions, dtype=jnp.float32)  # [N, draws, A]
        return jnp.tile(chosen.reshape(rows, -1), (1, jump // draws))

    return policy


def make_roll_out(config, actions, query, policy):
    """The rollouts of every row, (params, Start) -> Imagined. policy: of `make_rollout_policy`."""
    model = query.model

    def first_actions(agent, key, features):
        """float32 [B, K, jump * A]. features: [B, ...], of the states where rollouts begin."""
        rows, count = features.shape[0], config.rollouts
        if config.force_first:
            forced = jnp.tile(jnp.eye(actions), (1, query.jump))  # [K, jump * A]
            return jnp.broadcast_to(forced[None], (rows, *forced.shape))
        return policy(agent, key, jnp.repeat(features, count, axis=0)).reshape(rows, count, -1)

    def roll_out(params, start):
        world = query.merge(jax.lax.stop_gradient(params["model"]), params["agent"]["model"])
        first_key, key = jax.random.split(start.key)
        features = model.features(world, start.state)
        first = first_actions(params["agent"], first_key, features)
        draw = functools.partial(policy, params["agent"])
        states, taken = imagine.branch(model, world, key, start.state, first, draw, config.horizon)
        shape = (config.horizon, *first.shape[:2])
        shown = model.features(world, fold(states)).reshape(*shape, *model.feature_shape)
        reward = model.reward(world, fold(states)).reshape(shape)
        return Imagined(features, shown, reward, taken[..., :actions].reshape(*shape, actions))

    return roll_out


def make_rollout_encoder(config, feature_shape, apply):
    """The summary of rollouts, (agent, Imagined [T, ...]) -> float32 [B * T, K * lstm_units]."""

    def encode(agent, imagined):
        features, reward = (jnp.moveaxis(x, 2, 0) for x in (imagined.features, imagined.reward))  # [B, T, H, K, ...]
        rows, time, horizon, count = reward.shape
        reward = config.reward_scale * reward.reshape(-1, 1) if config.sees_rewards else None
        encoded = apply(agent, "encoder", features.reshape(-1, *feature_shape), reward)
        encoded = encoded.reshape(rows * time, horizon, count, -1).swapaxes(0, 1)  # [H, B * T, K, F]
        encoded = encoded.reshape(horizon, rows * time * count, -1)
        zero = jnp.zeros((rows * time * count, config.lstm_units))
        read = lambda memory, x: (apply(agent, "lstm", *memory, x), None)
        (code, _), _ = jax.lax.scan(read, (zero, zero), encoded, reverse=True)  # last step first
        return code.reshape(rows * time, -1)

    return encode


def choose(agent, params, key, step, seen):
    """Actions int32 [B], drawn from the policy, and its logits [B, A]. step: Step [B]; seen: of `look` at this Step."""
    images, seen = jax.tree.map(lambda x: x[None], (image_of(step.obs), seen))
    logits = agent.decide(params, images, seen).logits[0]
    return jax.random.categorical(key, logits), logits


def make_actor(agent):
    """An Actor of an Agent: draws from its policy, whether it explores or not; extras are the logits [E, A]."""

    def act(params, key, carry, step, explore):
        look_key, draw_key = jax.random.split(key)
        carry, seen = agent.look(params, look_key, carry, step)
        return carry, *choose(agent, params, draw_key, step, seen)

    return Actor(agent.initial, act)
