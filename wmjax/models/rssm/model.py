"""PlaNet's latent dynamics models: RSSM, purely stochastic SSM, deterministic RNN and DRNN (Hafner et al. 2019).

One step of each (section 3 and Fig. 8), with a action, h belief, s sample, o embedded image:

    rssm   h' = GRU(h, f(s, a))     prior  s' ~ p(s'|h')       posterior  s' ~ q(s'|h', o')    features [s', h']
    ssm                             prior  s' ~ p(s'|s, a)     posterior  s' ~ q(s'|prior, o') features s'
    rnn    as rssm, with the means in place of samples
    drnn   e' = GRU(e, [o', a, s])  both   s' ~ p(s'|e', s, h) h' = GRU(h, s')                 features h'  (`drnn.py`)

The rnn's loss has no divergence (authors' code), so that nothing trains its prior: where no image is seen, GRU and
heads are given the code of the prior's first weights.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from wmjax.models.rssm import drnn, image_rewards, vector
from wmjax.nets.casting import make_apply
from wmjax.nets.gru import GRU
from wmjax.nets.images import ImageDecoder, ImageEncoder
from wmjax.nets.mlp import MLP, GaussianHead, ObservedGaussianHead, glorot
from wmjax.ops import image_bits
from wmjax.types import Array, WorldModel, image_of


@struct.dataclass
class RSSMState:
    """A belief about the current latent state, one row for each sequence."""

    mean: Array  # float32 [B, Z]
    std: Array  # float32 [B, Z]
    sample: Array  # float32 [B, Z]
    belief: Array  # float32 [B, U], the GRU's state, of the drnn its decoder's; U = 0 for the ssm
    encoder: Array  # float32 [B, U], the state of the drnn's encoder; U = 0 for the others
    reward: Array | None = None  # float32 [B, 1], the last reward, of reward_leak alone


def make_modules(config, obs_shape):
    """The flax modules of one time step, by the name of their parameters."""
    activation = {"relu": nn.relu, "elu": nn.elu}[config.activation]
    gaussian = dict(size=config.stochastic, activation=activation, min_std=config.min_std)
    single = dict(
        input=nn.Dense(config.hidden, kernel_init=glorot),
        prior=GaussianHead((config.hidden,), **gaussian),
        posterior=ObservedGaussianHead(config.hidden, **gaussian),
    )
    decoder = ImageDecoder(obs_shape, config.decoder_widths, config.decoder_hidden, activation)
    of_features = MLP((config.reward_units,) * config.reward_layers, 1, activation)
    modules = dict(
        encoder=ImageEncoder(config.encoder_widths, activation=activation),
        **(dict(decoder=decoder) if config.predicts_images else {}),
        **(drnn.make_modules(config, activation) if config.kind == "drnn" else single),
        reward=image_rewards.make_module(config) if config.reward_from == "images" else of_features,
    )
    if config.kind in ("rssm", "rnn"):
        modules["gru"] = GRU(config.deterministic)
    return modules, activation


def state_sizes(config):
    """Numbers of each array of an RSSMState."""
    belief = 0 if config.kind == "ssm" else config.deterministic
    encoder = config.deterministic if config.kind == "drnn" else 0
    reward = 1 if config.reward_leak else None
    return RSSMState(config.stochastic, config.stochastic, config.stochastic, belief, encoder, reward)


def feature_size(config):
    """F: the sample and the belief; of the drnn the belief alone."""
    sizes = state_sizes(config)
    return sizes.belief if config.kind == "drnn" else sizes.sample + sizes.belief


def init_params(key, config, env_spec):
    """Parameters of every module: a dict by module name."""
    modules, _ = make_modules(config, env_spec.obs_shape)
    keys = dict(zip(modules, jax.random.split(key, len(modules)), strict=True))
    units = state_sizes(config).belief
    features, sample = jnp.zeros((1, feature_size(config))), jnp.zeros((1, config.stochastic))
    latent = jnp.zeros((1, config.hidden if config.kind == "ssm" else units))
    seen = jnp.zeros((1, 2 * config.stochastic if config.kind == "ssm" else units))
    image = jnp.zeros((1, *env_spec.obs_shape))
    action = jnp.zeros((1, env_spec.action.size))
    embed, encoder = modules["encoder"].init_with_output(keys["encoder"], image)
    vectors = vector.init_params(key, config, env_spec, features)
    embed = vector.embed(config, vectors, embed, jax.tree.map(lambda x: jnp.zeros((1, *x.shape)), env_spec.obs))
    inputs = dict(
        decoder=(features,),
        input=(jnp.concatenate([sample, action], -1),),
        prior=(latent,),
        reward=image_rewards.example_inputs(config, image) if config.reward_from == "images" else (features,),
        gru=(latent, jnp.zeros((1, config.hidden))),
        **drnn.example_inputs(config, embed, action),
    )
    params = {name: module.init(keys[name], *inputs[name]) for name, module in modules.items() if name in inputs}
    params |= dict(encoder=encoder, **vectors)
    if "posterior" in modules:
        params["posterior"] = modules["posterior"].init(keys["posterior"], seen, embed, method="init_both")
    return params


def make_draw(config):
    """A function (key, mean, std) -> sample; of the rnn the mean."""

    def draw(key, mean, std):
        return mean + std * jax.random.normal(key, mean.shape)

    return (lambda key, mean, std: mean) if config.kind == "rnn" else draw


def make_cell(config, activation, apply, draw):
    """(project, observe, imagine, features) of one step of the rssm, ssm or rnn; apply and draw as in `make_model`."""

    def project(params, embedding):
        """[B, D] -> [B, hidden], the embedding's share of the posterior's first layer: one product over all steps."""
        return apply(params, "posterior", embedding, method="project")

    def transition(params, state, action):
        """The prior of the next step -> mean, std, belief."""
        hidden = activation(apply(params, "input", jnp.concatenate([state.sample, action], -1)))
        if config.kind == "ssm":
            return (*apply(params, "prior", hidden), state.belief)
        belief = apply(params, "gru", state.belief, hidden)
        return (*apply(params, "prior", belief), belief)

    def arrive(key, state, mean, std, belief):
        return state.replace(mean=mean, std=std, sample=draw(key, mean, std), belief=belief)

    def observe(params, key, state, prev_action, embed):
        prior_mean, prior_std, belief = transition(params, state, prev_action)
        seen = jnp.concatenate([prior_mean, prior_std], -1) if config.kind == "ssm" else belief
        mean, std = apply(params, "posterior", seen, embed)
        return arrive(key, state, mean, std, belief), (prior_mean, prior_std)

    def imagine(params, key, state, action):
        mean, std, belief = transition(params, state, action)
        return arrive(key, state, mean, std, belief)

    def features(state):
        return jnp.concatenate([state.sample, state.belief], -1)

    return project, observe, imagine, features


def make_heads(apply, features_of):
    """(features, reward, discount, decode) of a WorldModel; apply and features_of as in `make_model`."""

    def features(params, state):
        return features_of(state)

    def reward(params, state):
        return apply(params, "reward", features_of(state))[:, 0]

    def discount(params, state):
        return jnp.ones(state.sample.shape[0])  # PlaNet predicts no terminations: its tasks end by time alone

    def decode(params, state):
        """Mean of a unit Gaussian over the image in [-0.5, 0.5], float32 [B, X, Y, C]."""
        return apply(params, "decoder", features_of(state))

    return features, reward, discount, decode


def make_model(config, env_spec):
    """The WorldModel of `config` for environments of `env_spec`. Its aux is the prior of each step: (mean, std)."""
    modules, activation = make_modules(config, env_spec.obs_shape)
    apply, draw = make_apply(config, modules), make_draw(config)
    cell = drnn.make_cell(apply, draw) if config.kind == "drnn" else make_cell(config, activation, apply, draw)
    project, step, imagine, features_of = cell
    features, reward, discount, decode = make_heads(apply, features_of)

    def initial(params, batch):
        # a buffer each: one may not be donated twice
        return jax.tree.map(lambda size: jnp.zeros((batch, size), jnp.float32), state_sizes(config))

    def encode(params, obs):
        """obs uint8 [B, X, Y, C] -> the cell's share of the embedding: [B, hidden], of the drnn [B, 3 U]."""
        image = image_bits.bin_centre(image_of(obs), config.image_bits)
        return project(params, vector.embed(config, params, apply(params, "encoder", image), obs))

    def observe(params, key, state, prev_action, embed, is_first):
        first = is_first[:, None]
        state, prev_action = jax.tree.map(lambda x: jnp.where(first, 0.0, x), (state, prev_action))
        return step(params, key, state, prev_action, embed)

    decode = decode if config.predicts_images else None
    size = (feature_size(config),)
    model = WorldModel(initial, encode, observe, imagine, features, reward, discount, decode, size)
    return image_rewards.with_image_rewards(model, config, apply) if config.reward_from == "images" else model
