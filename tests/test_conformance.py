"""What every model and its learner promise, whatever they are made of: one suite over a list.

States are opaque here: they are looked at through the model's heads alone. The list: tests/tiny_models.py.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fakes import random_steps
from tests.tiny_models import MODELS, VARIANTS
from wmjax import imagine
from wmjax.models import state_space
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, time_first, unfold_like
from wmjax.planners import CEMConfig, make_cem
from wmjax.storage import checkpoint

B, T, H = 3, 6, 3
KEY, OTHER_KEY = jax.random.key(1), jax.random.key(2)
KEYS, OTHER_KEYS = jax.random.split(KEY, 2), jax.random.split(OTHER_KEY, 2)  # of the two members of an update


WITHOUT_NOISE = ("dssm_det", "ar", "reward_only")  # nothing at all is drawn, in updates neither
NOISE_IN_PRIORS_ALONE = ("vq_convlstm", "vq_convlstm_autoregressive")  # the posterior is certain, draws hit few codes
# Images of an episode that make its first state.
FROM_IMAGES_ALONE = {name: 3 for name in state_space.KINDS} | dict(ot_lr=1)
RENDERED = ("decoder", "encoder", "reward")
# What planning needs beside the reward's module; these models imagine images, or read rewards off them.
NEEDED = dict(rar=RENDERED, ar=RENDERED, rssm_image_rewards=("decoder", "reward"))
NEEDED |= dict.fromkeys(("ot_or", "ot_lr"), ("body", "reward"))
FROM_THE_LAST_IMAGE = ("reward_only",)  # all that was before an image is forgotten, and no reward is told of its own
PREDICTED = ("dssm_det", "ar")  # an image changes later states, not its own
ACTIONS_THAT_REACH = dict(vae=(), ar=(1, 2, 3), sssm=(3,), dssm_det=(3,))


class Case(NamedTuple):
    name: str
    spec: Any
    model: Any
    learner: Any
    batch: Any  # Step [B, T] in numpy
    state: Any  # LearnerState of two members
    params: Any  # of the first member
    start: Any  # model state of B rows
    update: Any  # jitted, as it runs: over members that have one batch each
    look: Any  # jitted: (params, key, batch, start) -> what is believed at each time, leaves [B, T, ...]


def make_look(model, spec):
    """Filters a batch and asks every head about every state; then imagines, from the state before the first.

    With the gradients of what is believed at (row 2, time 3), of images too but not as they are drawn, with respect to
    all embeddings and actions.
    """

    def believed(inputs, params, key, start, is_first):
        embed, action = inputs
        _, states, aux = imagine.filter(model, params, key, start, prev_action=action, embed=embed, is_first=is_first)
        heads = [model.features, model.reward, model.discount] + ([model.decode] if model.decode else [])
        seen = [unfold_like(head(params, fold(states)), states) for head in heads]
        there = at((seen[:2], aux), 2, 3)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(there)), (states, aux, seen)

    @jax.jit
    def look(params, key, batch, start):
        action = model_action(batch.prev_action, spec.action)
        embed = model.encode(params, fold(batch.obs))
        embed = embed.reshape(B, T, *embed.shape[1:])
        gradient, seen = jax.grad(believed, has_aux=True)((embed, action), params, key, start, batch.is_first)
        onward = imagine.open_loop(model, params, key, start, time_first(action[:, :H]))
        imagined = time_first(unfold_like(model.features(params, fold(onward)), onward))
        return dict(seen=seen, imagined=imagined, gradient=dict(zip(("embed", "action"), gradient, strict=True)))

    return look


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    spec, model, learner = MODELS[request.param]()
    state = jax.jit(jax.vmap(learner.init))(jax.random.split(jax.random.key(0)))
    params = at(state.params, 0)
    start = model.initial(params, B)
    update, look = jax.jit(jax.vmap(learner.update)), make_look(model, spec)
    return Case(request.param, spec, model, learner, random_steps(spec, B, T), state, params, start, update, look)


class Shapes(NamedTuple):
    name: str
    spec: Any
    model: Any
    learner: Any
    params: Any  # shapes, as everything that is made of them


@pytest.fixture(scope="module", params=MODELS | VARIANTS)
def shapes(request):
    spec, model, learner = (MODELS | VARIANTS)[request.param]()
    return Shapes(request.param, spec, model, learner, jax.eval_shape(learner.init, KEY).params)


def start_of(shapes):
    return jax.eval_shape(lambda params: shapes.model.initial(params, B), shapes.params)


def at(tree, *index):
    return jax.tree.map(lambda x: x[index], tree)


def twice(tree):
    """The same for two members."""
    return jax.tree.map(lambda x: np.stack([x, x]), tree)


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def some_differ(one, other):
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


def look(case, key=KEY, batch=None, start=None):
    """In numpy: comparing arrays of jax compiles."""
    return jax.device_get(case.look(case.params, key, batch or case.batch, start or case.start))


def update(case, state, keys):
    """Both members have the same batch."""
    return case.update(state, keys, twice(case.batch))


def changed(batch, rows, times, spec):
    """The batch with other images, actions and rewards at [rows, times]."""
    new = random_steps(spec, B, T + 1, seed=5)
    action = (batch.prev_action + 1) % spec.action.size if spec.action.discrete else new.prev_action[:, 1:]

    def put(old, other):
        old = old.copy()
        old[rows, times] = other[:, -T:][rows, times]
        return old

    return batch.replace(
        prev_action=put(batch.prev_action, action),
        obs=put(batch.obs, new.obs),
        reward=put(batch.reward, new.reward),
    )


def beginning(batch, *places):
    """The batch with beginnings of episodes at these (row, time) too."""
    is_first = batch.is_first.copy()
    for place in places:
        is_first[place] = True
    return batch.replace(is_first=is_first)


def test_states_are_float32_whatever_the_default_is(shapes):
    with jax.enable_x64(True):
        leaves = jax.tree.leaves(start_of(shapes))
    assert not any(leaf.dtype == jnp.float64 for leaf in leaves)


def test_shapes_of_heads(shapes):
    model, params, start = shapes.model, shapes.params, start_of(shapes)
    features = jax.eval_shape(model.features, params, start)
    assert features.shape == (B, *model.feature_shape) and len(model.feature_shape) in (1, 3)
    heads = {head: jax.eval_shape(head, params, start) for head in (model.reward, model.discount)}
    assert {x.shape for x in heads.values()} == {(B,)}
    if model.decode:
        assert jax.eval_shape(model.decode, params, start).shape == (B, *shapes.spec.obs_shape)


def test_a_step_keeps_the_form_of_the_state(shapes):
    """Scans and donated loops need it, weak types included."""
    model, params, form = shapes.model, shapes.params, start_of(shapes)
    batch = random_steps(shapes.spec, B, 1)
    action = jnp.zeros((B, shapes.spec.action.size))
    embed = jax.eval_shape(model.encode, params, batch.obs[:, 0])
    seen, _ = jax.eval_shape(model.observe, params, KEY, form, action, embed, batch.is_first[:, 0])
    imagined = jax.eval_shape(model.imagine, params, KEY, form, action)
    assert seen == imagined == form


@pytest.mark.parametrize("name", VARIANTS)
def test_updates_keep_the_form_of_the_members_state(name):
    """Of the compiled models the second update shows it, which compiles nothing."""
    spec, _, learner = VARIANTS[name]()
    state = jax.eval_shape(jax.vmap(learner.init), KEYS)
    after, metrics = jax.eval_shape(jax.vmap(learner.update), state, KEYS, twice(random_steps(spec, B, T)))
    assert after == state
    assert {x.shape for x in jax.tree.leaves(metrics)} == {(2,)}
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_planning_in_the_latents_needs_no_decoder(shapes):
    model, start = shapes.model, start_of(shapes)
    spec = shapes.spec.action._replace(discrete=False)  # planners search vectors; models take any
    planner = make_cem(model, spec, CEMConfig(horizon=2, iterations=1, candidates=4, elites=2))
    needed = NEEDED.get(shapes.name, ("reward",))
    params = shapes.params
    if shapes.name not in NEEDED:
        params = {name: value for name, value in params.items() if name != "decoder"}
        assert ("decoder" in shapes.params) == (model.decode is not None)
        plan = jax.eval_shape(planner.plan, params, KEY, start)
        assert plan.action.shape == (B, spec.size) and plan.mean.shape == (B, 2, spec.size)
    for missing in needed:
        without = {name: value for name, value in params.items() if name != missing}
        with pytest.raises(KeyError, match=missing):
            jax.eval_shape(planner.plan, without, KEY, start)


def test_shapes_and_types(case):
    looked = look(case)
    assert {x.shape[:2] for x in jax.tree.leaves(looked["seen"])} == {(B, T)}
    assert looked["imagined"].shape == (B, H, *looked["seen"][2][0].shape[2:])
    for leaf in jax.tree.leaves((looked, jax.device_get(case.params))):
        assert leaf.dtype == np.float32 and np.isfinite(leaf).all()
    reward, discount = looked["seen"][2][1:3]
    assert (reward.std() > 0) == (case.name not in FROM_THE_LAST_IMAGE)
    assert (discount >= 0).all() and (discount <= 1).all()


def test_initial_state_can_be_donated(case):
    """Every leaf owns its memory: a buffer that is handed over twice is refused."""
    start = case.model.initial(case.params, B)
    if jax.tree.leaves(start):
        jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(start)


def test_updates_change_every_parameter_and_compile_once(case):
    one, metrics = update(case, case.state, KEYS)
    two, _ = update(case, one, OTHER_KEYS)
    assert case.update._cache_size() == 1
    metrics = jax.device_get(metrics)
    assert all(x.all() for x in metrics.pop("grad_finite").values())
    for name, value in metrics.items():
        assert value.shape == (2,) and np.isfinite(value).all(), name
    assert [state.updates.tolist() for state in (case.state, one, two)] == [[0, 0], [1, 1], [2, 2]]
    before, after = jax.device_get((case.state.params, one.params))
    for (path, old), new in zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True):
        assert np.isfinite(new).all(), jax.tree_util.keystr(path)
        assert (old != new).reshape(2, -1).any(axis=1).all(), jax.tree_util.keystr(path)


def test_the_same_key_gives_the_same_update_and_another_does_not(case):
    """In whichever place a member stands."""
    state = jax.tree.map(jnp.asarray, twice(at(jax.device_get(case.state), 0)))
    keys = jnp.stack([KEY, OTHER_KEY])
    one, other = (jax.device_get(update(case, state, keys)[0].params) for keys in (keys, keys[::-1]))
    equal(at(one, 0), at(other, 1))
    equal(at(one, 1), at(other, 0))
    if case.name in WITHOUT_NOISE:
        equal(at(one, 0), at(one, 1))
    else:
        some_differ(at(one, 0), at(one, 1))  # without noise in the latents there is still that of the images' bits


def test_the_same_key_gives_the_same_states_and_another_does_not(case):
    one, again, other = (look(case, key) for key in (KEY, KEY, OTHER_KEY))
    equal(one, again)
    if case.name in WITHOUT_NOISE:
        equal(one, other)
    elif case.name in NOISE_IN_PRIORS_ALONE:
        equal(one["seen"], other["seen"])
        assert (one["imagined"] != other["imagined"]).reshape(B, -1).any(axis=1).all()
    else:
        drawn = slice(FROM_IMAGES_ALONE.get(case.name, 0), None)
        differ = (one["seen"][2][0] != other["seen"][2][0]).reshape(B, T, -1).any(axis=-1)  # features
        assert differ[:, drawn].all() and not differ[:, : drawn.start].any()
        assert (one["imagined"] != other["imagined"]).reshape(B, H, -1).any(axis=-1).all()


def test_filtering_equals_a_loop_of_observe(case):
    model, params = case.model, case.params
    batch = beginning(case.batch, (1, 3))
    states, aux, _ = look(case, batch=batch)["seen"]
    state = case.start

    @jax.jit
    def observe(key, state, obs, action, is_first):
        action = model_action(action, case.spec.action)
        return model.observe(params, key, state, action, model.encode(params, obs), is_first)

    for t, key in enumerate(jax.random.split(KEY, T)):
        state, aux_t = observe(key, state, batch.obs[:, t], batch.prev_action[:, t], batch.is_first[:, t])
        for scanned, looped in zip(jax.tree.leaves((states, aux)), jax.tree.leaves((state, aux_t)), strict=True):
            np.testing.assert_allclose(scanned[:, t], looped, rtol=1e-4, atol=1e-5)


def test_is_first_erases_the_past(case):
    """Other images, actions and another state before an episode's first row, and another action into it."""
    batch = beginning(case.batch.replace(is_first=np.zeros((B, T), bool)), (0, 3))
    other = changed(batch, slice(None), slice(0, 3), case.spec)
    other = other.replace(prev_action=changed(batch, slice(None), slice(0, 4), case.spec).prev_action)
    elsewhere = jax.tree.map(lambda x: np.asarray(x) + np.float32(3), case.start)
    one, two = look(case, batch=batch), look(case, batch=other, start=elsewhere)
    equal(at(one["seen"], 0, slice(3, None)), at(two["seen"], 0, slice(3, None)))
    if case.name not in FROM_THE_LAST_IMAGE:
        some_differ(at(one["seen"], 1, slice(3, None)), at(two["seen"], 1, slice(3, None)))
    some_differ(at(one["seen"], 0, slice(0, 3)), at(two["seen"], 0, slice(0, 3)))


def test_the_future_does_not_reach_back(case):
    other = beginning(changed(case.batch, slice(None), slice(4, None), case.spec), (slice(None), 5))
    one, two = look(case)["seen"], look(case, batch=other)["seen"]
    equal(at(one, slice(None), slice(0, 4)), at(two, slice(None), slice(0, 4)))
    for row in range(B):
        some_differ(at(one, row, 4), at(two, row, 4))


def test_rows_are_independent(case):
    one, two = look(case), look(case, batch=changed(case.batch, 2, slice(None), case.spec))
    for looked in (one, two):
        del looked["gradient"]  # of row 2
    for row in (0, 1):
        equal(at(one, row), at(two, row))
    some_differ(at(one, 2), at(two, 2))


def test_gradients_reach_back_in_their_own_row_and_nowhere_else(case):
    for name, grad in look(case)["gradient"].items():
        size = np.abs(grad).reshape(B, T, -1).sum(-1)
        reached = np.zeros((B, T), bool)
        reached[2, :4] = True
        if case.name in FROM_THE_LAST_IMAGE:
            reached[2] = (np.arange(T) == 3) & (name == "embed")
        elif name == "action":
            reached[2, 0] = False  # is_first: no action led there
            if case.name in ACTIONS_THAT_REACH:
                reached[2] = np.isin(np.arange(T), ACTIONS_THAT_REACH[case.name])
        elif case.name in PREDICTED:
            reached[2, 3] = False
        np.testing.assert_array_equal(size > 0, reached)


def test_save_and_restore_are_equal(case, tmp_path):
    state, _ = update(case, case.state, KEYS)
    checkpoint.save(tmp_path, 1, {"learner": state})
    template = {"learner": jax.eval_shape(jax.vmap(case.learner.init), KEYS)}
    step, restored = checkpoint.restore_latest(tmp_path, template)
    assert step == 1
    equal(restored["learner"], state)
    equal(*(update(case, x, OTHER_KEYS) for x in (restored["learner"], state)))
    assert case.update._cache_size() == 1
