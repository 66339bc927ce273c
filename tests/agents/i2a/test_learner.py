"""The actor-critic's loss against numpy, and where its gradients go."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny_i2a
from wmjax.agents import i2a
from wmjax.agents.i2a import learner
from wmjax.types import Step, image_of


def returns_by_hand(reward, discount, is_last, value, gamma):
    """[n, E] by plain loops: what each decision's return is, and where it counts."""
    n, rows = len(reward) - 1, reward.shape[1]
    returns, counts = np.zeros((n, rows)), np.ones((n, rows), bool)
    for e in range(rows):
        for t in range(n):
            counts[t, e] = not is_last[t, e]
            total, weight = 0.0, 1.0
            for s in range(t, n):
                if is_last[s, e]:
                    break
                total += weight * reward[s + 1, e]
                weight *= gamma * discount[s + 1, e]
                if is_last[s + 1, e] or s + 1 == n:
                    total += weight * value[s + 1, e]
            returns[t, e] = total
    return returns, counts


def steps_with_ends():
    """Step [7, 4]: a death, a time limit, two short episodes, and none."""
    rng = np.random.default_rng(0)
    shape = (7, 4)
    is_last = np.zeros(shape, bool)
    is_last[3, 0] = is_last[2, 1] = is_last[1, 2] = is_last[4, 2] = is_last[6, 3] = True
    discount = np.ones(shape, np.float32)
    discount[3, 0] = discount[4, 2] = discount[6, 3] = 0
    is_first = np.concatenate([np.zeros((1, 4), bool), is_last[:-1]])
    reward = np.where(is_first, 0, rng.normal(size=shape)).astype(np.float32)
    action = rng.integers(0, tiny_i2a.ACTIONS, shape, dtype=np.int32)
    obs = rng.integers(0, 256, (*shape, *tiny_i2a.IMAGE.shape), dtype=np.uint8)
    return Step(action, obs, reward, discount, is_first, is_last)


def test_returns_stop_at_deaths_and_go_on_at_time_limits():
    config, _ = tiny_i2a.make_agent("none", discount=0.9, reward_scale=2.0)
    steps = steps_with_ends()
    value = np.random.default_rng(1).normal(size=steps.reward.shape).astype(np.float32)
    expected, counts = returns_by_hand(2 * steps.reward, steps.discount, steps.is_last, value, 0.9)
    found = learner.advantages(config, steps, value)
    np.testing.assert_allclose(np.where(counts, found + value[:-1], 0), np.where(counts, expected, 0), atol=1e-5)
    assert np.array_equal(np.asarray(found)[~counts], np.zeros((~counts).sum()))


def test_the_loss_is_that_of_a_plain_computation():
    config, agent = tiny_i2a.make_agent("none", discount=0.9, entropy=0.02, value_scale=0.3)
    params = tiny_i2a.params_of(agent)
    params["agent"] = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), params["agent"])
    unroll = i2a.Unroll(params["model"], steps_with_ends(), ())
    decided = agent.decide(params, unroll.steps.obs, ())
    logits, value = np.asarray(decided.logits, np.float64), np.asarray(decided.value, np.float64)
    steps = unroll.steps
    returns, counts = returns_by_hand(steps.reward, steps.discount, steps.is_last, value, 0.9)
    policy_loss, value_loss, entropy = [], [], []
    for t, e in zip(*np.nonzero(counts), strict=True):
        p = np.exp(logits[t, e] - logits[t, e].max())
        p /= p.sum()
        policy_loss.append(-np.log(p[steps.prev_action[t + 1, e]]) * (returns[t, e] - value[t, e]))
        value_loss.append(0.5 * (returns[t, e] - value[t, e]) ** 2)
        entropy.append(-(p * np.log(p)).sum())
    loss, metrics = learner.actor_critic_loss(config, agent, params["agent"], unroll)
    named = dict(policy_loss=policy_loss, value_loss=value_loss, entropy=entropy)
    for name, each in named.items():
        np.testing.assert_allclose(metrics[name], np.mean(each), rtol=1e-4)
    whole = np.mean(policy_loss) + 0.3 * np.mean(value_loss) - 0.02 * np.mean(entropy)
    np.testing.assert_allclose(loss, whole, rtol=1e-4)


def test_actions_on_last_rows_count_for_nothing():
    config, agent = tiny_i2a.make_agent("none")
    params, steps = tiny_i2a.params_of(agent), steps_with_ends()
    other = np.array(steps.prev_action)
    other[steps.is_first] = (other[steps.is_first] + 1) % tiny_i2a.ACTIONS
    losses = [
        learner.actor_critic_loss(config, agent, params["agent"], i2a.Unroll(None, changed, ()))[0]
        for changed in (steps, steps.replace(prev_action=other))
    ]
    assert losses[0] == losses[1]


def gradients(policy, query=None, **settings):
    """Gradients of the loss without distillation: (of the agent's parameters, of the model's)."""
    config, agent = tiny_i2a.make_agent(policy, query, distillation=0.0, **settings)
    params = tiny_i2a.params_of(agent)
    unroll = tiny_i2a.make_unroll(agent, params)

    def loss(own, model):
        return learner.actor_critic_loss(config, agent, own, unroll.replace(model=model))[0]

    return jax.jit(jax.grad(loss, argnums=(0, 1)))(params["agent"], params["model"])


def size(tree):
    return sum(float(np.abs(x).sum()) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("policy", ["uniform", "distilled", "learned"])
def test_the_policy_gradient_reaches_a_learned_rollout_policy_alone_and_never_the_model(policy):
    own, model = gradients(policy)
    assert size(model) == 0
    assert size(own["encoder"]) > 0 and size(own["trunk"]) > 0
    assert (size(own.get("rollout_policy", {})) > 0) == (policy == "learned")


def test_modulation_trains_its_part_of_the_model_alone():
    """With the model's own weights in it rollouts are the model's."""
    effect = tiny_i2a.make_params()["effect"]
    own, model = gradients("uniform", tiny_i2a.fold_query(effect), modulated=True)
    assert size(own["model"]["effect"]) > 0 and size(model) == 0
    config, agent = tiny_i2a.make_agent("uniform", tiny_i2a.fold_query(effect), modulated=True)
    params = tiny_i2a.params_of(agent)
    unroll = tiny_i2a.make_unroll(agent, params)
    modulated = agent.decide(params, unroll.steps.obs, unroll.seen).imagined
    _, plain = tiny_i2a.make_agent("uniform")
    np.testing.assert_allclose(modulated.features, tiny_i2a.make_unroll(plain, params).seen.features, atol=1e-6)


def test_the_gradient_through_rollouts_equals_finite_differences():
    config, agent = tiny_i2a.make_agent("learned", rollout_entropy=0.1)
    params = tiny_i2a.params_of(agent)
    params["agent"]["heads"]["params"]["logits"]["kernel"] *= 100  # first logits are nearly 0, and let little through
    unroll = tiny_i2a.make_unroll(agent, params)
    value = agent.decide(params, unroll.steps.obs, unroll.seen).value  # the targets' stays as it is
    fixed = learner.advantages(config, unroll.steps, value)

    def loss(policy):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(learner, "advantages", lambda *args: fixed)
            own = params["agent"] | dict(rollout_policy=policy)
            whole, metrics = learner.actor_critic_loss(config, agent, own, unroll)
            return whole - config.value_scale * metrics["value_loss"]  # whose target moves with the value

    policy = params["agent"]["rollout_policy"]
    leaves, shape = jax.tree.flatten(policy)
    rng = np.random.default_rng(0)
    along = jax.tree.unflatten(shape, [rng.normal(size=x.shape).astype(np.float32) for x in leaves])
    run = jax.jit(loss)
    gradient = jax.jit(jax.grad(loss))(policy)
    step = 3e-3
    ahead = run(jax.tree.map(lambda x, d: x + step * d, policy, along))
    behind = run(jax.tree.map(lambda x, d: x - step * d, policy, along))
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: float((g * d).sum()), gradient, along)))
    assert abs(slope) > 1e-3
    np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=0.05)


def test_distillation_pulls_the_rollout_policy_to_the_policy_and_moves_nothing_else():
    config, agent = tiny_i2a.make_agent("distilled", learning_rate=1e-2, clip_norm=100.0)
    params = tiny_i2a.params_of(agent)
    heads = params["agent"]["heads"]["params"]["logits"]
    heads["bias"] = jnp.array([2.0, 0.0, -1.0, 0.0])  # a policy to imitate
    unroll = tiny_i2a.make_unroll(agent, params)

    def divergence(own):
        decided = agent.decide(dict(model=unroll.model, agent=own), image_of(unroll.steps.obs), unroll.seen)
        return learner.distillation(agent, own, decided.imagined.start, decided, jnp.mean)["distillation_loss"]

    gradient = jax.jit(jax.grad(divergence))(params["agent"])
    assert {name for name, tree in gradient.items() if size(tree) > 0} == {"rollout_policy"}
    measure, slope = jax.jit(divergence), jax.jit(jax.grad(divergence))
    before, own = measure(params["agent"]), params["agent"]
    for _ in range(50):
        own = jax.tree.map(lambda x, g: x - 0.3 * g, own, slope(own))
    assert measure(own) < 0.2 * before


def loss_of_a_made_up_decision(config, **imagined):
    """(loss, metrics, what the rollout policy was given), where that takes all actions equally often."""
    steps, given, rng = steps_with_ends(), [], np.random.default_rng(0)
    fields = dict.fromkeys(("start", "features", "reward", "action")) | imagined
    logits = jnp.float32(rng.normal(size=(*steps.reward.shape, tiny_i2a.ACTIONS)))
    decided = i2a.actor.Decided(logits, logits[..., 0], i2a.actor.Imagined(**fields))
    policy_logits = lambda params, x: given.append(x) or jnp.zeros((len(x), tiny_i2a.ACTIONS))
    agent = i2a.actor.Agent(None, None, None, lambda *args: decided, policy_logits)
    return *learner.actor_critic_loss(config, agent, {}, i2a.Unroll({}, steps, None)), given


def without_rollouts(config, metrics):
    """The part of a loss that has nothing to do with the policy of the rollouts."""
    value, entropy = config.value_scale * metrics["value_loss"], config.entropy * metrics["entropy"]
    return metrics["policy_loss"] + value - entropy


@pytest.mark.parametrize("pixels", [False, True])
def test_with_pixels_the_rollout_policy_imitates_on_real_images(pixels):
    """Where it takes all actions equally often, KL(policy || it) is log A less the policy's entropy."""
    config = i2a.I2AConfig(pixels=pixels, distillation=0.3)
    obs = steps_with_ends().obs
    loss, metrics, given = loss_of_a_made_up_decision(config, start=jnp.zeros((*obs.shape[:2], 2, 3, 1)))
    expected = np.swapaxes(obs[:-1], 0, 1).reshape(-1, *tiny_i2a.IMAGE.shape) / 255
    np.testing.assert_allclose(given[0], expected if pixels else np.zeros((24, 2, 3, 1)), atol=1e-6)
    most = np.log(tiny_i2a.ACTIONS)
    np.testing.assert_allclose(metrics["distillation_loss"], most - metrics["entropy"], rtol=1e-5)
    np.testing.assert_allclose(metrics["rollout_entropy"], most, rtol=1e-5)
    np.testing.assert_allclose(loss, without_rollouts(config, metrics) + 0.3 * metrics["distillation_loss"], rtol=1e-5)


@pytest.mark.parametrize("force_first", [True, False])
def test_the_entropy_of_a_learned_rollout_policy_is_a_penalty(force_first):
    """Mean entropy of what it chose, at the decisions that count: not of first actions that are given."""
    config = i2a.I2AConfig(rollout_policy="learned", rollout_entropy=0.4, force_first=force_first)
    action = np.random.default_rng(1).dirichlet(np.ones(tiny_i2a.ACTIONS), size=(7, 3, 4, 2))  # [T, H, B, K, A]
    loss, metrics, _ = loss_of_a_made_up_decision(config, action=jnp.float32(action))
    entropy = -(action * np.log(action)).sum(-1)[:-1, 1 if force_first else 0 :].mean(axis=(1, 3))
    expected = entropy[~steps_with_ends().is_last[:-1]].mean()
    np.testing.assert_allclose(metrics["rollout_entropy"], expected, rtol=1e-4)
    np.testing.assert_allclose(loss, without_rollouts(config, metrics) + 0.4 * expected, rtol=1e-4)


@pytest.mark.parametrize("policy", ["none", "distilled"])
def test_updates_move_every_parameter(policy):
    config, agent = tiny_i2a.make_agent(policy)
    learning = i2a.make(config, agent)
    state = learning.init(jax.random.key(0))
    params = dict(model=tiny_i2a.make_params(), agent=state.params)
    unroll = tiny_i2a.make_unroll(agent, params, rows=8)
    update = jax.jit(functools.partial(learning.update))
    for _ in range(2):  # first logits are nearly 0, and let little through
        after, metrics = update(state, jax.random.key(1), unroll)
        state, before = after, state
    moved = jax.tree.map(lambda x, y: bool((x != y).any()), before.params, after.params)
    assert all(jax.tree.leaves(moved))
    assert after.updates == 2 and all(metrics["grad_finite"].values())
