"""What imagined steps of the environment models cost."""

import jax
import jax.numpy as jnp
import pytest

from tests.fakes import SPEC
from tests.tiny_state_space import configured
from wmjax import imagine
from wmjax.models import state_space
from wmjax.models.state_space.model import init_params, make_model
from wmjax.nets import state_space as nets

B, H, KEY = 2, 3, jax.random.key(0)
DECODER = nets.FrameDecoder
IN_LATENTS, IN_PIXELS = ("sssm", "dssm_vae", "dssm_det", "vae"), ("rar", "ar")


def lowered_rollout(kind, drop=()):
    """The program of a rollout whose parameters lack some modules."""
    config = configured(kind=kind)
    model, _ = make_model(config, SPEC)
    params = jax.eval_shape(lambda: init_params(KEY, config, SPEC))
    params = {name: x for name, x in params.items() if name not in drop}

    def run(params, key):
        policy = lambda key, features: jnp.tanh(features[:, 0, 0, :2])
        return imagine.rollout(model, params, key, model.initial(params, B), policy, H)[1]

    return jax.jit(run).lower(params, jax.eval_shape(lambda: KEY))


def flops(program):
    return program.cost_analysis()["flops"]


class Tenfold:
    """A decoder ten times as costly."""

    def __init__(self, *args):
        self.one = DECODER(*args)

    def init(self, *args):
        return self.one.init(*args)

    def apply(self, params, x):
        return sum(self.one.apply(params, x + i) for i in range(10))


@pytest.mark.parametrize("kind", IN_LATENTS)
def test_rollouts_in_the_latents_have_no_images(kind, monkeypatch):
    """No parameters of decoder or encoder are asked for, and a costlier decoder costs the program nothing."""
    once = flops(lowered_rollout(kind, drop=("decoder", "encoder", "start", "posterior")))
    monkeypatch.setattr(nets, "FrameDecoder", Tenfold)
    assert once == flops(lowered_rollout(kind)) > 0


@pytest.mark.parametrize("kind", IN_PIXELS)
def test_rollouts_in_pixels_render_every_image(kind, monkeypatch):
    for missing in ("decoder", "encoder"):
        with pytest.raises(KeyError, match=missing):
            lowered_rollout(kind, drop=(missing,))
    once = flops(lowered_rollout(kind))
    monkeypatch.setattr(nets, "FrameDecoder", Tenfold)
    assert flops(lowered_rollout(kind)) > 2 * once


class Counted:
    """A module and the shapes it was called with."""

    def __init__(self, module, shapes):
        self.module, self.shapes = module, shapes

    def init(self, *args):
        return self.module.init(*args)

    def apply(self, params, x):
        self.shapes.append(x.shape)
        return self.module.apply(params, x)


@pytest.mark.parametrize("kind", state_space.KINDS)
def test_an_imagined_step_embeds_one_image_or_none(kind, monkeypatch):
    """Also where the last 5 images make the state: their embeddings are kept."""
    shapes, encoder = [], nets.FrameEncoder
    monkeypatch.setattr(nets, "FrameEncoder", lambda *sizes: Counted(encoder(*sizes), shapes))
    config = configured(kind=kind, order=5)
    model, _ = make_model(config, SPEC)
    params = jax.eval_shape(lambda: init_params(KEY, config, SPEC))
    step = lambda params, key: model.imagine(params, key, model.initial(params, B), jnp.zeros((B, 2)))
    jax.eval_shape(step, params, KEY)
    assert shapes == ([(B, 16, 16, 3)] if kind in IN_PIXELS else [])
