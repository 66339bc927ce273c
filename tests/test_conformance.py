"""What every model and its learner promise, whatever they are made of: one suite over a list.

States are opaque here: they are looked at through the model's heads alone. To add a model, add one line to MODELS.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import DISCRETE_SPEC, SPEC, random_steps
from wmjax import imagine
from wmjax.models import rssm, state_space, vq_convlstm
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, time_first, unfold_like
from wmjax.planners import CEMConfig, make_cem
from wmjax.storage import checkpoint

B, T, H = 3, 6, 3
KEY, OTHER_KEY = jax.random.key(1), jax.random.key(2)


def tiny_rssm(spec, **settings):
    """Wide enough that no layer of relus is dead in some row; no free nats, for what is free has no gradient."""
    sizes = dict(stochastic=4, deterministic=6, hidden=12, decoder_hidden=8, reward_units=12)
    widths = dict(encoder_widths=(4, 8), decoder_widths=(8,))
    return spec, *rssm.make(rssm.RSSMConfig(**sizes, **widths, free_nats=0.0, **settings), spec)


def tiny_vq(spec, **settings):
    sizes = dict(codes=6, code_size=3, cells=(4, 5), kernel=3, reward_channels=4, reward_hidden=16, context=2)
    config = vq_convlstm.VQConvLSTMConfig(encoder_widths=(4, 8), decoder_widths=(8, 4), **sizes, **settings)
    return spec, *vq_convlstm.make(config, spec)


def tiny_state_space(spec, **settings):
    config = state_space.StateSpaceConfig(channels=8, encoder_width=8, decoder_width=8, reward_digits=3, **settings)
    return spec, *state_space.make(config, spec)


FOR_GAMES = dict(contrast=16.0, latent_std=0.1, kl_anneal_target=0.5)
MODELS = {  # name -> (environment spec, WorldModel, Learner)
    "rssm": lambda: tiny_rssm(SPEC),
    "rssm_elu_overshooting": lambda: tiny_rssm(SPEC, activation="elu", overshooting_distance=3),
    "ssm_overshooting": lambda: tiny_rssm(SPEC, kind="ssm", overshooting_distance=3),
    "ssm_elu_discrete": lambda: tiny_rssm(DISCRETE_SPEC, kind="ssm", activation="elu"),
    "rnn": lambda: tiny_rssm(SPEC, kind="rnn"),
    "vq_convlstm": lambda: tiny_vq(SPEC),
    "vq_convlstm_discrete": lambda: tiny_vq(DISCRETE_SPEC),
    "vq_convlstm_vector": lambda: tiny_vq(SPEC, latent="continuous", dimensions=1),
    "vq_convlstm_autoregressive": lambda: tiny_vq(DISCRETE_SPEC, predictor="autoregressive", encoder_kernel=2),
    "sssm": lambda: tiny_state_space(SPEC, kind="sssm"),
    "dssm_vae": lambda: tiny_state_space(SPEC, kind="dssm_vae", **FOR_GAMES),
    "dssm_det": lambda: tiny_state_space(DISCRETE_SPEC, kind="dssm_det"),
    "rar": lambda: tiny_state_space(SPEC, kind="rar"),
    "ar": lambda: tiny_state_space(SPEC, kind="ar"),
    "vae": lambda: tiny_state_space(SPEC, kind="vae"),
}
UNTRAINED = dict(rnn="['prior']")  # without a divergence the prior has no loss
WITHOUT_NOISE = ("rnn", "dssm_det", "rar", "ar")
THE_SAME_UPDATES = ("dssm_det", "rar", "ar")  # nothing at all is drawn
NOISE_IN_PRIORS_ALONE = (
    "vq_convlstm",
    "vq_convlstm_discrete",
    "vq_convlstm_autoregressive",
)  # the posterior is certain, and draws hit few codes
FROM_IMAGES_ALONE = {name: 3 for name in state_space.KINDS}  # images of an episode that make its first state
IN_PIXELS = ("rar", "ar")  # what they imagine they render
PREDICTED = ("dssm_det", "rar", "ar")  # an image changes later states, not its own
ACTIONS_THAT_REACH = dict(vae=(), ar=(1, 2, 3)) | {name: (3,) for name in ("sssm", "dssm_vae", "dssm_det", "rar")}


class Case(NamedTuple):
    name: str
    spec: Any
    model: Any
    learner: Any
    batch: Any  # Step [B, T]
    state: Any  # LearnerState
    update: Any  # jitted
    look: Any  # jitted: (params, key, batch, start) -> what is believed at each time, leaves [B, T, ...]


def make_look(model, spec):
    """Filters a batch and asks every head about every state; then imagines, from the state before the first."""

    def look(params, key, batch, start):
        action = model_action(batch.prev_action, spec.action)
        embed = model.encode(params, fold(batch.obs))
        embed = embed.reshape(B, T, *embed.shape[1:])
        _, states, aux = imagine.filter(
            model, params, key, start, prev_action=action, embed=embed, is_first=batch.is_first
        )
        flat = fold(states)
        heads = [model.features, model.reward, model.discount] + ([model.decode] if model.decode else [])
        seen = [unfold_like(head(params, flat), states) for head in heads]
        onward = imagine.open_loop(model, params, key, start, time_first(action[:, :H]))
        imagined = time_first(unfold_like(model.features(params, fold(onward)), onward))
        return dict(seen=(states, aux, seen), imagined=imagined)

    return jax.jit(look)


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    spec, model, learner = MODELS[request.param]()
    state = jax.jit(learner.init)(jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, random_steps(spec, B, T))
    return Case(request.param, spec, model, learner, batch, state, jax.jit(learner.update), make_look(model, spec))


def start_of(case, rows=B):
    return case.model.initial(case.state.params, rows)


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_states_are_float32_whatever_the_default_is(case):
    with jax.enable_x64(True):
        leaves = jax.tree.leaves(jax.eval_shape(lambda: start_of(case)))
    assert not any(leaf.dtype == jnp.float64 for leaf in leaves)


def some_differ(one, other):
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def at(tree, *index):
    return jax.tree.map(lambda x: x[index], tree)


def changed(batch, rows, times, spec):
    """The batch with other images, actions and rewards at [rows, times]."""
    new = random_steps(spec, B, T + 1, seed=5)

    def put(old, other):
        return jnp.asarray(old).at[rows, times].set(other[:, 1:][rows, times])

    return batch.replace(
        prev_action=put(batch.prev_action, new.prev_action),
        obs=put(batch.obs, new.obs),
        reward=put(batch.reward, new.reward),
    )


def test_shapes_and_types(case):
    model, params = case.model, case.state.params
    features = jax.eval_shape(model.features, params, start_of(case))
    assert features.shape == (B, *model.feature_shape)
    shapes = {head: jax.eval_shape(head, params, start_of(case)) for head in (model.reward, model.discount)}
    assert {x.shape for x in shapes.values()} == {(B,)}
    if model.decode:
        assert jax.eval_shape(model.decode, params, start_of(case)).shape == (B, *case.spec.obs_shape)
    looked = case.look(params, KEY, case.batch, start_of(case))
    assert {x.shape[:2] for x in jax.tree.leaves(looked["seen"])} == {(B, T)}
    assert looked["imagined"].shape == (B, H, *model.feature_shape)
    for leaf in jax.tree.leaves((looked, params)):
        assert leaf.dtype == np.float32 and np.isfinite(leaf).all()
    reward, discount = looked["seen"][2][1:3]
    assert reward.std() > 0 and (discount >= 0).all() and (discount <= 1).all()


def test_a_step_keeps_the_form_of_the_state(case):
    """Scans and donated loops need it, weak types included."""
    model, params, start = case.model, case.state.params, start_of(case)
    action = jnp.zeros((B, case.spec.action.size))
    embed = jax.eval_shape(model.encode, params, case.batch.obs[:, 0])
    seen, _ = jax.eval_shape(model.observe, params, KEY, start, action, embed, case.batch.is_first[:, 0])
    imagined = jax.eval_shape(model.imagine, params, KEY, start, action)
    form = jax.eval_shape(lambda x: x, start)
    assert seen == imagined == form


def test_initial_state_can_be_donated(case):
    """Every leaf owns its memory: a buffer that is handed over twice is refused."""
    if jax.tree.leaves(start_of(case)):
        jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(start_of(case))


def test_updates_change_every_parameter_and_compile_once(case):
    one, metrics = case.update(case.state, KEY, case.batch)
    two, _ = case.update(one, OTHER_KEY, case.batch)
    assert case.update._cache_size() == 1
    assert all(metrics.pop("grad_finite").values())
    for name, value in metrics.items():
        assert value.shape == () and np.isfinite(value), name
    assert [int(state.updates) for state in (case.state, one, two)] == [0, 1, 2]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(case.state.params)]
    for path, old, new in zip(paths, jax.tree.leaves(case.state.params), jax.tree.leaves(one.params), strict=True):
        trained = not path.startswith(UNTRAINED.get(case.name, "none"))
        assert np.isfinite(new).all() and (old != new).any() == trained, path


def test_the_same_key_gives_the_same_update_and_another_does_not(case):
    one, again, other = (case.update(case.state, key, case.batch)[0].params for key in (KEY, KEY, OTHER_KEY))
    equal(one, again)
    if case.name in THE_SAME_UPDATES:
        equal(one, other)
    else:
        some_differ(one, other)  # without noise in the latents there is still that of the images' bits


def test_the_same_key_gives_the_same_states_and_another_does_not(case):
    one, again, other = (case.look(case.state.params, key, case.batch, start_of(case)) for key in (KEY, KEY, OTHER_KEY))
    equal(one, again)
    if case.name in WITHOUT_NOISE:
        equal(one, other)
    elif case.name in NOISE_IN_PRIORS_ALONE:
        equal(one["seen"], other["seen"])
        assert (one["imagined"] != other["imagined"]).any(axis=(1, 2)).all()
    else:
        drawn = slice(FROM_IMAGES_ALONE.get(case.name, 0), None)
        differ = (one["seen"][2][0] != other["seen"][2][0]).any(axis=-1)  # features [B, T]
        assert differ[:, drawn].all() and not differ[:, : drawn.start].any()
        assert (one["imagined"] != other["imagined"]).any(axis=-1).all()


def test_filtering_equals_a_loop_of_observe(case):
    model, params = case.model, case.state.params
    batch = case.batch.replace(is_first=case.batch.is_first.at[1, 3].set(True))
    states, aux, _ = case.look(params, KEY, batch, start_of(case))["seen"]
    action, state = model_action(batch.prev_action, case.spec.action), start_of(case)

    @jax.jit
    def observe(key, state, obs, action, is_first):
        return model.observe(params, key, state, action, model.encode(params, obs), is_first)

    for t, key in enumerate(jax.random.split(KEY, T)):
        state, aux_t = observe(key, state, batch.obs[:, t], action[:, t], batch.is_first[:, t])
        for scanned, looped in zip(jax.tree.leaves((states, aux)), jax.tree.leaves((state, aux_t)), strict=True):
            np.testing.assert_allclose(scanned[:, t], looped, rtol=1e-4, atol=1e-5)


def test_is_first_erases_the_past(case):
    """Other images, actions and another state before an episode's first row, and another action into it."""
    first = case.batch.is_first.at[:].set(False).at[0, 3].set(True)
    batch = case.batch.replace(is_first=first)
    other = changed(batch, slice(None), slice(0, 3), case.spec)
    other = other.replace(prev_action=changed(batch, slice(None), 3, case.spec).prev_action)
    elsewhere = jax.tree.map(lambda x: x + 3, start_of(case))
    one = case.look(case.state.params, KEY, batch, start_of(case))
    two = case.look(case.state.params, KEY, other, elsewhere)
    equal(at(one["seen"], 0, slice(3, None)), at(two["seen"], 0, slice(3, None)))
    some_differ(at(one["seen"], 1, slice(3, None)), at(two["seen"], 1, slice(3, None)))
    some_differ(at(one["seen"], 0, slice(0, 3)), at(two["seen"], 0, slice(0, 3)))


def test_the_future_does_not_reach_back(case):
    one = case.look(case.state.params, KEY, case.batch, start_of(case))["seen"]
    other = changed(case.batch, slice(None), slice(4, None), case.spec)
    other = other.replace(is_first=other.is_first.at[:, 5].set(True))
    two = case.look(case.state.params, KEY, other, start_of(case))["seen"]
    equal(at(one, slice(None), slice(0, 4)), at(two, slice(None), slice(0, 4)))
    for row in range(B):
        some_differ(at(one, row, 4), at(two, row, 4))


def test_rows_are_independent(case):
    one = case.look(case.state.params, KEY, case.batch, start_of(case))
    two = case.look(case.state.params, KEY, changed(case.batch, 2, slice(None), case.spec), start_of(case))
    for row in (0, 1):
        equal(at(one, row), at(two, row))
    some_differ(at(one, 2), at(two, 2))


def test_gradients_reach_back_in_their_own_row_and_nowhere_else(case):
    """Of what is believed at (row 2, time 3) with respect to all embeddings and actions."""
    model, params = case.model, case.state.params
    embed = jax.jit(model.encode)(params, fold(case.batch.obs))
    embed = embed.reshape(B, T, *embed.shape[1:])
    action = model_action(case.batch.prev_action, case.spec.action)

    @jax.jit
    @jax.grad
    def gradient(inputs):
        embed, action = inputs
        states, aux = imagine.filter(
            model, params, KEY, start_of(case), prev_action=action, embed=embed, is_first=case.batch.is_first
        )[1:]
        rewards = imagine.rewards(model, params, states)
        there = at((unfold_like(model.features(params, fold(states)), states), rewards, aux), 2, 3)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(there))

    for grad in gradient((embed, action)):
        size = np.abs(grad).reshape(B, T, -1).sum(-1)
        reached = np.zeros((B, T), bool)
        reached[2, :4] = True
        if grad.shape == action.shape:
            reached[2, 0] = False  # is_first: no action led there
            if case.name in ACTIONS_THAT_REACH:
                reached[2] = np.isin(np.arange(T), ACTIONS_THAT_REACH[case.name])
        elif case.name in PREDICTED:
            reached[2, 3] = False
        np.testing.assert_array_equal(size > 0, reached)


def test_planning_in_the_latents_needs_no_decoder(case):
    model = case.model
    spec = case.spec.action._replace(discrete=False)  # planners search vectors; models take any
    planner = make_cem(model, spec, CEMConfig(horizon=2, iterations=1, candidates=4, elites=2))
    if case.name in IN_PIXELS:
        assert_planning_needs(case, planner, case.state.params, ("decoder", "encoder", "reward"))
        return
    params = {name: value for name, value in case.state.params.items() if name != "decoder"}
    assert len(params) == len(case.state.params) - 1
    plan = jax.eval_shape(planner.plan, params, KEY, start_of(case))
    assert plan.action.shape == (B, spec.size) and plan.mean.shape == (B, 2, spec.size)
    assert_planning_needs(case, planner, params, ("reward",))


def assert_planning_needs(case, planner, params, names):
    for missing in names:
        without = {name: value for name, value in params.items() if name != missing}
        with pytest.raises(KeyError, match=missing):
            jax.eval_shape(planner.plan, without, KEY, start_of(case))


def test_seeds_can_be_a_leading_axis(case):
    keys = jax.random.split(KEY, 2)
    states = jax.eval_shape(jax.vmap(case.learner.init), keys)
    after, _ = jax.eval_shape(jax.vmap(case.learner.update, in_axes=(0, 0, None)), states, keys, case.batch)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, states)


def test_save_and_restore_are_equal(case, tmp_path):
    state, _ = case.update(case.state, KEY, case.batch)
    checkpoint.save(tmp_path, 1, {"learner": state})
    template = {"learner": jax.eval_shape(case.learner.init, KEY)}
    step, restored = checkpoint.restore_latest(tmp_path, template)
    assert step == 1
    equal(restored["learner"], state)
    equal(*(case.update(x, OTHER_KEY, case.batch) for x in (restored["learner"], state)))
    assert case.update._cache_size() == 1
