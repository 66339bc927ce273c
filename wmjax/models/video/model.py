"""World models whose dynamics are those of images: OT_OR and OT_LR of Babaeizadeh et al. 2020.

x last image, a action, h the ConvLSTMs' states, r reward, o true image:

    h', x' = SV2P(h, x, a')         imagine: x'        observe: o' in the place of x'

    ot_or   r1 .. rH = conv(x0, x1 .. xH), the last true image and all that are imagined from it: a fixed horizon
    ot_lr   r' = conv(activations of SV2P), which is fed r

An image t + 1 follows from the action that led to it. The authors' code gives it the action before that one
(`actions_late`), so that their planner never sees what it scores. No true reward enters: of ot_or the authors feed the
two of the context, of ot_lr the last one; here ot_lr is fed its own prediction, as it is in all that it imagines.
The noise is that of the authors' prior, for which they train no posterior: it counts in the number of parameters, and
the network learns to ignore it. They draw it once a sequence; here it is drawn at every step.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from wmjax.imagine import open_loop
from wmjax.nets.reward import ActivationReward, ImageRewards
from wmjax.nets.sv2p import SHRINKAGE, SV2P, cell_shapes
from wmjax.ops.axes import time_first, where_rows
from wmjax.ops.frames import unit_pixels
from wmjax.types import Array, UsageError, WorldModel, image_of


@struct.dataclass
class VideoState:
    """One row for each sequence."""

    cells: tuple[tuple[Array, Array], ...]  # (h, c) of each ConvLSTM, float32 [B, X', Y', channels]
    image: Array  # float32 [B, X, Y, C] in [0, 1]: the true one where it was seen, else the predicted one
    reward: Array | None  # float32 [B], predicted, of the ot_lr; 0 at an episode's first image
    action: Array | None  # float32 [B, A], the one that led here, where actions are late


def check_image(obs_shape):
    """Raises UsageError unless SV2P can halve the image (X, Y, C) three times."""
    if any(side % SHRINKAGE for side in obs_shape[:2]):
        raise UsageError(
            f"image size {obs_shape[0]}x{obs_shape[1]}: an image-predicting model needs sides divisible by {SHRINKAGE}"
        )


def make_modules(config):
    """The flax modules of one time step, by the name of their parameters."""
    reward = ImageRewards(config.horizon, config.reward_widths) if config.kind == "ot_or" else ActivationReward()
    return dict(body=SV2P(config.filters, jnp.dtype(config.compute_dtype)), reward=reward)


def noise_shape(config, obs_shape):
    """Of one image's noise."""
    return (*(side // SHRINKAGE for side in obs_shape[:2]), config.latent_channels)


def empty_state(config, env_spec, batch):
    """Zeros, each array with memory of its own: one may not be donated twice."""
    zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
    shapes = cell_shapes(env_spec.obs_shape, config.filters)
    return VideoState(
        cells=tuple((zeros((batch, *shape)), zeros((batch, *shape))) for shape in shapes),
        image=zeros((batch, *env_spec.obs_shape)),
        reward=zeros(batch) if config.kind == "ot_lr" else None,
        action=zeros((batch, env_spec.action.size)) if config.actions_late else None,
    )


def init_params(key, config, env_spec):
    """Parameters of every module: a dict by module name. Nothing is computed but they."""
    modules = make_modules(config)
    body_key, reward_key = jax.random.split(key)
    start = jax.eval_shape(lambda: empty_state(config, env_spec, 1))
    action, noise = (
        jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        for shape in ((env_spec.action.size,), noise_shape(config, env_spec.obs_shape))
    )
    inputs = (start.cells, start.image, action, start.reward, noise)
    body = modules["body"].lazy_init(body_key, *inputs)
    _, image, activations = jax.eval_shape(modules["body"].apply, body, *inputs)
    sequence = jax.ShapeDtypeStruct((1, 1 + config.horizon, *image.shape[1:]), jnp.float32)
    read = sequence if config.kind == "ot_or" else activations
    return dict(body=body, reward=modules["reward"].lazy_init(reward_key, read))


def readable(config, tree):
    """What passes between the networks of images and of rewards: without its gradient, unless that is shared."""
    return jax.lax.stop_gradient(tree) if config.reward_gradient == "stopped" else tree


def rewards_of_images(config, params, images):
    """Rewards [H, B] of an ot_or from images [1 + H, B, X, Y, C]."""
    images = time_first(readable(config, images))  # [B, 1 + H, X, Y, C]
    return make_modules(config)["reward"].apply(params["reward"], images).T


def make_model(config, env_spec):
    """The WorldModel of `config`. Its aux is the image that was predicted where another was seen; 0 where first."""
    modules, shape = make_modules(config), env_spec.obs_shape
    grid = (shape[0] // SHRINKAGE, shape[1] // SHRINKAGE)

    def initial(params, batch):
        return empty_state(config, env_spec, batch)

    def encode(params, obs):
        return unit_pixels(image_of(obs))

    def imagine(params, key, state, action):
        noise = jax.random.normal(key, (action.shape[0], *noise_shape(config, shape)))
        input_action = state.action if config.actions_late else action
        last_reward = readable(config, state.reward)  # else the loss of images would train the reward network
        inputs = (state.cells, state.image, input_action, last_reward, noise)
        cells, image, activations = modules["body"].apply(params["body"], *inputs)
        reward = None
        if config.kind == "ot_lr":
            reward = modules["reward"].apply(params["reward"], readable(config, activations))
        return VideoState(cells, image, reward, action if config.actions_late else None)

    def observe(params, key, state, prev_action, embed, is_first):
        predicted = imagine(params, key, state, prev_action)
        predicted = where_rows(is_first, jax.tree.map(jnp.zeros_like, predicted), predicted)
        return predicted.replace(image=embed), predicted.image

    def features(params, state):
        """The means of the middle ConvLSTM's channels, and the image at an eighth of its size."""
        blocks = state.image.reshape(-1, grid[0], SHRINKAGE, grid[1], SHRINKAGE, shape[2]).mean((2, 4))
        return jnp.concatenate([state.cells[4][0].mean((1, 2)), blocks.reshape(blocks.shape[0], -1)], -1)

    def reward(params, state):
        """Of the ot_or the mean over the rewards of a sequence that stands still: it has none of one image."""
        if config.kind == "ot_lr":
            return state.reward
        still = jnp.broadcast_to(state.image[None], (1 + config.horizon, *state.image.shape))
        return rewards_of_images(config, params, still).mean(0)

    def rewards(params, key, state, actions):
        states = open_loop(model, params, key, state, actions)
        return rewards_of_images(config, params, jnp.concatenate([state.image[None], states.image]))

    def discount(params, state):
        return jnp.ones(state.image.shape[0])

    def decode(params, state):
        """The image in [-0.5, 0.5]."""
        return state.image - 0.5

    size = config.filters[4] + grid[0] * grid[1] * shape[2]
    model = WorldModel(initial, encode, observe, imagine, features, reward, discount, decode, (size,))
    return model._replace(rewards=rewards, horizon=config.horizon) if config.kind == "ot_or" else model


def with_hidden_images(model):
    """The same model where some images are not shown: it goes on from its own, as if it imagined.

    Its embeddings are (image [B, X, Y, C], shown bool [B]).
    """

    def observe(params, key, state, prev_action, embed, is_first):
        image, shown = embed
        state, predicted = model.observe(params, key, state, prev_action, image, is_first)
        return state.replace(image=jnp.where(shown[:, None, None, None], image, predicted)), predicted

    return model._replace(observe=observe)
