"""Looking and deciding: rows stay apart, rollouts are those of the model, contexts hold the right images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny_i2a
from tests.fakes import randomised
from tests.nets_by_hand import convolve, dense, sigmoid
from wmjax.agents import i2a
from wmjax.agents.i2a import actor
from wmjax.ops.axes import fold
from wmjax.run.members import member
from wmjax.types import image_of

KEY = jax.random.key(4)


AGENTS = {
    "uniform": lambda: tiny_i2a.make_agent("uniform"),
    "distilled, not forced": lambda: tiny_i2a.make_agent("distilled", force_first=False, rollouts=5),
    "learned": lambda: tiny_i2a.make_agent("learned"),
    "modulated": lambda: tiny_i2a.make_agent(
        "uniform", tiny_i2a.fold_query(tiny_i2a.make_params()["effect"]), modulated=True, sees_rewards=False
    ),
}


@pytest.mark.parametrize("name", AGENTS)
def test_another_image_in_a_row_changes_no_other_row(name):
    """B is not K; acting, and learning from what acting saw."""
    _, agent = AGENTS[name]()
    params = tiny_i2a.params_of(agent)
    for head in (params["agent"].get("rollout_policy"), params["agent"]["heads"]):
        if head:  # first logits are nearly 0, and let little through
            head["params"]["logits"]["kernel"] *= 1e4
    whole = jax.jit(lambda unroll: agent.decide(params, image_of(unroll.steps.obs), unroll.seen)[:2])
    act = jax.jit(lambda step: i2a.choose(agent, params, KEY, step, agent.look(params, KEY, carry, step)[1])[1])
    carry = agent.initial(params, tiny_i2a.ROWS)
    unroll = tiny_i2a.make_unroll(agent, params)
    other = np.array(unroll.steps.obs)
    other[:, 1] = 255 - other[:, 1]
    changed = tiny_i2a.make_unroll(agent, params, obs=other)
    found = [[*whole(each), act(member(each.steps, 0))[None]] for each in (unroll, changed)]
    for before, after in zip(*found, strict=True):
        before, after = np.asarray(before), np.asarray(after)
        assert np.array_equal(before[:, [0, 2]], after[:, [0, 2]])
        assert (before[:, 1] != after[:, 1]).any()


@pytest.mark.parametrize("name", AGENTS)
def test_learning_recomputes_the_logits_of_acting(name):
    _, agent = AGENTS[name]()
    params = tiny_i2a.params_of(agent)
    unroll = tiny_i2a.make_unroll(agent, params)
    again = jax.jit(lambda unroll: agent.decide(params, image_of(unroll.steps.obs), unroll.seen).logits)(unroll)
    act = jax.jit(lambda step, seen: i2a.choose(agent, params, KEY, step, seen)[1])
    for t in range(tiny_i2a.STEPS + 1):
        step, seen = member((unroll.steps, unroll.seen), t)
        np.testing.assert_allclose(act(step, seen), again[t], atol=1e-6)


def test_the_actor_door_looks_and_decides_alike():
    _, agent = tiny_i2a.make_agent("uniform")
    params, door = tiny_i2a.params_of(agent), i2a.make_actor(agent)
    step = member(tiny_i2a.make_unroll(agent, params).steps, 0)
    carry, action, logits = door.act(params, KEY, door.initial(params, tiny_i2a.ROWS), step, False)
    keys = jax.random.split(KEY)
    seen, other = (agent.look(params, key, door.initial(params, tiny_i2a.ROWS), step)[1] for key in keys)
    assert (seen.features != other.features).any()  # what is imagined is drawn anew at every look
    chosen = i2a.choose(agent, params, keys[1], step, seen)
    assert np.array_equal(action, chosen[0]) and np.array_equal(logits, chosen[1])
    assert carry.shape == (tiny_i2a.ROWS, 3, 2, 3, 1)


def first_rows(agent, params):
    """(Step [B] of first images, what the agent sees there)."""
    unroll = tiny_i2a.make_unroll(agent, params)
    return member((unroll.steps, unroll.seen), 0)


def test_the_first_imagined_states_are_the_models_under_each_action():
    """And rollout k of a deterministic model differs from the others, while copies do not."""
    query = tiny_i2a.make_query(tiny_i2a.make_model(noise=0.0))
    _, agent = tiny_i2a.make_agent("uniform", query)
    params = tiny_i2a.params_of(agent)
    steps, seen = first_rows(agent, params)
    embed = query.model.encode(params["model"], steps.obs)
    state = tiny_i2a.begin(params["model"], jnp.repeat(embed[:, None], 3, axis=1))
    for k in range(tiny_i2a.ACTIONS):
        action = jnp.tile(jnp.eye(tiny_i2a.ACTIONS)[k], (tiny_i2a.ROWS, 1))
        expected = query.model.imagine(params["model"], KEY, state, action)
        np.testing.assert_allclose(seen.features[0, :, k], expected.cells, atol=1e-6)
        np.testing.assert_allclose(seen.reward[0, :, k], expected.reward, atol=1e-6)
    assert len(np.unique(np.asarray(seen.reward[1]), axis=1).T) == tiny_i2a.ACTIONS
    copies = query._replace(model=query.model._replace(imagine=lambda params, key, state, action: state))
    copied = first_rows(tiny_i2a.make_agent("uniform", copies)[1], params)[1]
    assert np.array_equal(copied.features, np.broadcast_to(copied.start[None, :, None], copied.features.shape))


def test_a_learned_rollout_policys_actions_are_probabilities():
    """One for each decision of a jumpy model's step, and the first one is forced."""
    query = tiny_i2a.make_query(jump=2)
    _, agent = tiny_i2a.make_agent("learned", query)
    params = tiny_i2a.params_of(agent, jump=2)
    unroll = tiny_i2a.make_unroll(agent, params)
    action = agent.decide(params, image_of(unroll.steps.obs), unroll.seen).imagined.action
    assert np.array_equal(action[:, 0], np.broadcast_to(np.eye(tiny_i2a.ACTIONS), action[:, 0].shape))
    np.testing.assert_allclose(action[:, 1].sum(axis=-1), 1, atol=1e-6)
    assert 0 < float(action[:, 1].min()) < float(action[:, 1].max()) < 1


@pytest.mark.parametrize(("how", "differ"), [("repeat", False), ("independent", True)])
def test_the_actions_of_a_jump(how, differ):
    """The model is given two actions side by side: one twice, or two draws."""

    def imagine(params, key, state, action):
        first, second = jnp.split(action, 2, axis=1)
        apart = jnp.abs(first - second).sum(axis=1) + jnp.abs(first.sum(axis=1) - 1)
        return state.replace(cells=jnp.broadcast_to(apart[:, None, None, None], state.cells.shape))

    query = tiny_i2a.make_query(tiny_i2a.make_model(jump=2)._replace(imagine=imagine), jump=2)
    _, agent = tiny_i2a.make_agent("uniform", query, jump_actions=how, force_first=False)
    apart = np.asarray(first_rows(agent, tiny_i2a.params_of(agent, jump=2))[1].features)
    assert set(np.unique(apart)) == ({0, 2} if differ else {0})


def relu(x):
    return np.maximum(x, 0)


def decided_by_hand(params, images, seen, scale):
    """(logits [N, A], value [N]) of images uint8 [N, X, Y, C] and of what rollouts showed, [H, N, K, ...]."""
    modules = {name: tree["params"] for name, tree in params.items() if name != "model"}
    trunk, encoder, cell = modules["trunk"], modules["encoder"], modules["lstm"]
    x = relu(convolve(trunk["Conv_0"], images / 255, 1)).reshape(len(images), -1)
    known = [relu(dense(trunk["Dense_0"], x))]
    for k in range(tiny_i2a.ACTIONS):
        h, c = np.zeros((2, len(images), tiny_i2a.SIZES["lstm_units"]))
        for features, reward in zip(seen.features[::-1, :, k], seen.reward[::-1, :, k], strict=True):
            padded = np.pad(features, ((0, 0), (0, 1), (0, 1), (0, 0)))  # an even kernel sees one zero more at the end
            x = relu(convolve(encoder["Conv_0"], padded, 1)).reshape(len(images), -1)
            x = relu(dense(encoder["Dense_0"], np.concatenate([x, scale * reward[:, None]], axis=-1)))
            i, f, g, o = np.split(x @ cell["input_kernel"] + h @ cell["recurrent_kernel"] + cell["bias"], 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        known.append(h)
    x = np.concatenate(known, axis=-1)
    return dense(modules["heads"]["logits"], x), dense(modules["heads"]["value"], x)[:, 0]


def test_a_decision_equals_numpy():
    """The summary reads the last step first; rewards are scaled as those that the agent learns from."""
    _, agent = tiny_i2a.make_agent("uniform", reward_scale=3.0)
    params = tiny_i2a.params_of(agent)
    params["agent"] = randomised(params["agent"], 0.5)
    unroll = tiny_i2a.make_unroll(agent, params)
    found = jax.jit(lambda unroll: agent.decide(params, image_of(unroll.steps.obs), unroll.seen)[:2])(unroll)
    seen = jax.tree.map(np.asarray, unroll.seen)
    for t in range(tiny_i2a.STEPS + 1):
        expected = decided_by_hand(params["agent"], unroll.steps.obs[t], member(seen, t), 3.0)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one[t], other, rtol=1e-4, atol=1e-5)


def test_the_state_is_made_of_the_newest_images():
    """Images t - 2c, t - c and t, and the first one before an episode's start, also after another episode."""
    jump, rows = 2, tiny_i2a.ROWS
    _, agent = tiny_i2a.make_agent("uniform", tiny_i2a.make_query(jump=jump))
    params = tiny_i2a.params_of(agent, jump)
    none = np.zeros((7, rows), bool)
    first = none.copy()
    first[[0, 3], 1] = first[0] = True
    steps = tiny_i2a.make_unroll(agent, params, count=6, is_first=first).steps
    embeds = np.asarray(agent_query_embeds(steps))
    carry = agent.initial(params, rows)
    for t in range(7):
        carry, seen = agent.look(params, KEY, carry, member(steps, t))
        for row in range(rows):
            begun = 3 if row == 1 and t >= 3 else 0
            images = [embeds[max(t - back * jump, begun), row] for back in (2, 1, 0)]
            expected = 0.2 * images[0] + 0.3 * images[1] + 0.5 * images[2]
            np.testing.assert_allclose(seen.start[row], expected, atol=1e-6)


def agent_query_embeds(steps):
    embed = tiny_i2a.make_model().encode(None, fold(steps.obs))
    return embed.reshape(*steps.reward.shape, *embed.shape[1:])


def test_pixels_have_a_trunk_for_a_rollout_policy():
    config, _ = tiny_i2a.make_agent("distilled")
    settings = tiny_i2a.SIZES | dict(kernels=(3, 2), strides=(1, 1), widths=(4, 5), policy_widths=(6,))
    pixels = i2a.I2AConfig(pixels=True, **settings | dict(policy_widths=(6, 7)))
    body = actor.make_modules(pixels, tiny_i2a.SPEC, tiny_i2a.IMAGE.shape)
    assert body["rollout_policy"].body.widths == (6, 7)
    assert actor.make_modules(config, tiny_i2a.SPEC, (2, 3, 1))["rollout_policy"].body.widths == (3,)


@pytest.mark.parametrize(("imagined", "strided"), [((4, 6, 8), (5,)), ((2, 3, 8), ())])
def test_imaginations_as_large_as_images_alone_are_halved(imagined, strided):
    config = i2a.I2AConfig(**tiny_i2a.SIZES, encoder_strided=(5,))
    assert actor.make_modules(config, tiny_i2a.SPEC, imagined)["encoder"].strided == strided
