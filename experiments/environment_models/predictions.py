"""Evaluation of a trained model: held-out losses, and pictures of imagined futures."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.environment_models.agent import Settings, predicted_steps
from wmjax.agents.open_loop import open_loop_images
from wmjax.models import state_space
from wmjax.models.state_space import CONTEXT, model_action_size
from wmjax.ops import bernoulli, jumps
from wmjax.ops.actions import model_action
from wmjax.ops.axes import time_first
from wmjax.report.artifacts import Picture
from wmjax.run import devices
from wmjax.types import ActionSpec, Array, EnvSpec, Params, Step, WorldModel

SAMPLES = 3  # futures drawn for a picture
FUTURES = Picture(
    "futures_*.png",
    "Futures",
    "A held-out sequence and what the model makes of it: left of the orange marker it was shown the frames, right of "
    "it each row is a future that it imagined from the same actions.",
)


def make_evaluate(settings: Settings, env_spec: EnvSpec, mesh: Mesh) -> Callable:
    """A jitted function (params, key, chunks [N]) -> dict of losses [N], minus the bounds in nats a predicted step.

    loss: of the evidence lower bound; loss_tighter: of the importance-weighted one. A batch at a time, over the mesh.
    """
    score = state_space.make_score(settings.model, env_spec)
    batch, steps = settings.train.batch, predicted_steps(settings)

    def evaluate(params: Params, key: Array, chunks: Step) -> dict[str, Array]:
        chunks = jax.tree.map(lambda x: x.reshape(-1, batch, *x.shape[1:]), chunks)
        chunks = jax.lax.with_sharding_constraint(chunks, devices.split(mesh, 1))
        keys = jax.random.split(key, chunks.reward.shape[0])
        found = jax.lax.map(lambda each: score(params, *each, settings.evaluation.draws), (keys, chunks))
        losses = jax.tree.map(lambda x: -x.reshape(-1) / steps, found)
        return dict(loss=losses["bound"], loss_tighter=losses["tighter"])

    return jax.jit(evaluate, out_shardings=devices.replicated(mesh))


def make_futures(model: WorldModel, settings: Settings, env_spec: EnvSpec) -> Callable:
    """A jitted function (params, key, chunk Step [rows]) -> uint8 [SAMPLES, T, X, Y, C]: futures of one beginning.

    Its first CONTEXT images are those it was shown, the rest it imagined from the actions.
    """
    spec = ActionSpec(model_action_size(settings.model, env_spec.action), False, 0.0, 1.0)

    def futures(params: Params, key: Array, chunk: Step) -> Array:
        steps = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (SAMPLES, *x.shape)), chunk)
        action = model_action(steps.prev_action, env_spec.action)
        obs, action, reward = jumps.subsample(steps.obs, action, steps.reward, settings.model.jump)
        first = jnp.broadcast_to(jnp.arange(reward.shape[1])[None] == 0, reward.shape)
        steps = Step(action, obs, reward, jnp.ones(reward.shape), first, jnp.zeros(reward.shape, bool))
        steps = jax.tree.map(time_first, steps)
        logits = open_loop_images(model, params, key, steps, action_spec=spec, context=CONTEXT)
        drawn = jnp.rint(255 * bernoulli.mean(logits[CONTEXT:])).astype(jnp.uint8)
        return jnp.concatenate([obs[:, :CONTEXT], time_first(drawn)], axis=1)

    return jax.jit(futures)


def pictured(settings: Settings, chunks: Step) -> tuple[Step, np.ndarray]:
    """The held-out chunk of the pictures, and its images as the model counts time, uint8 [T, X, Y, C]."""
    chunk: Any = jax.tree.map(lambda x: x[0], chunks)
    return chunk, np.asarray(chunk.obs)[:: settings.model.jump]
