"""An auto-regressive model that embeds all its images at every step, beside ours that keeps the embeddings."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.environment_models.order_k import without_kept_embeddings
from tests.fakes import SPEC, randomised
from tests.tiny_state_space import batch_of, configured
from wmjax import imagine
from wmjax.models import state_space
from wmjax.models.state_space.model import init_params, make_model
from wmjax.ops.axes import fold, time_first
from wmjax.report import benchmark
from wmjax.types import ActionSpec, EnvSpec

B, H, KEY = 2, 3, jax.random.key(0)


def step_gflop(kind, wrap=lambda model, order, spec: model):
    """Of one imagined step and its reward at the paper's size."""
    spec = EnvSpec(jax.ShapeDtypeStruct((200, 160, 3), np.uint8), ActionSpec(18, True, 0, 17))
    config = state_space.StateSpaceConfig(kind=kind)
    model, learner = state_space.make(config, spec)
    model = wrap(model, config.order, spec)
    params = jax.eval_shape(learner.init, KEY).params

    def run(params, key):
        policy = lambda key, features: jnp.zeros((1, 18))
        return imagine.rollout(model, params, key, model.initial(params, 1), policy, H)[1].reward

    return benchmark.gflops(run, params, KEY) / H


def test_work_of_an_auto_regressive_step_beside_the_papers():
    """Table 1 has 5.2 for the sSSM and 2.0 for the RAR: near a model that embeds all its images at every step."""
    sssm, rar, kept = (step_gflop(kind) for kind in ("sssm", "rar", "ar"))
    anew = step_gflop("ar", without_kept_embeddings)
    np.testing.assert_allclose([kept / sssm, kept / rar], [3.48, 1.10], atol=0.01)
    np.testing.assert_allclose([anew / sssm, anew / rar], [5.38, 1.71], atol=0.01)


def test_embedding_anew_imagines_the_same():
    """From three random images and two actions between them on, through more steps than a state has images."""
    config, rows, steps = configured(kind="ar"), 2, 5
    kept, parts = make_model(config, SPEC)
    anew = without_kept_embeddings(kept, config.order, SPEC)
    params = randomised(jax.eval_shape(lambda: init_params(KEY, config, SPEC)), 0.12)
    batch = batch_of(steps)

    @jax.jit
    def run(params, batch):
        embed = fold(batch.obs[:, :3])
        embed = kept.encode(params, embed)
        embed = embed.reshape(rows, 3, *embed.shape[1:])
        state = parts.start(params, embed, batch.prev_action[:, :3])
        images = batch.obs[:, :3].astype(jnp.float32) / 255
        bare = anew.initial(params, rows)[0]
        bare = bare.replace(context=bare.context.replace(actions=state.context.actions))
        action = time_first(batch.prev_action)
        one = imagine.open_loop(kept, params, KEY, state, action)
        two = imagine.open_loop(anew, params, KEY, (bare, images), action)
        return [imagine.rewards(kept, params, one), one.state], [imagine.rewards(anew, params, two), two[0].state]

    for one, two in zip(*run(params, batch), strict=True):
        assert one.std() > 0
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
