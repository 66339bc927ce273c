"""The rollout engine: the only place where a model is scanned over time.

    filter           posterior states along real sequences   s1 - s2 - s3 - ...      (observe)
    filter_steps     the same, of Steps
    begin            the posterior state at a first image    s1
    open_loop        prior states under given actions        s  - a1 > s1 - a2 > s2  (imagine)
    closed_loop      prior states under a policy             s  - policy > s1 > ...
    branch           closed loops from every state, each with a first action of its own
    rollout          a closed loop as Steps, with rewards
    predict_rewards  rewards under given actions, also of models that need no states for them
    overshoot        priors of every distance from every state, the triangle of PlaNet's Fig. 3c

Every function is pure. Heads (features, reward, discount) run after the scan, folded over [H*B], so that a scan
step holds nothing but the transition.
"""

import chex
import jax
import jax.numpy as jnp

from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, shift, time_first, unfold_like
from wmjax.types import Step, UsageError, image_of


def filter(model, params, key, state, *, prev_action, embed, is_first):
    """Posterior states along sequences.

    Args:
      state: model state of B rows, the state before the first step.
      prev_action: float32 [B, T, A]; embed: [B, T, ...] from model.encode, any pytree; is_first: bool [B, T].
    Returns:
      (last state, states, aux): states and aux with leading axes [B, T].
    """
    chex.assert_rank([prev_action, is_first], [3, 2])
    chex.assert_equal_shape_prefix((prev_action, *jax.tree.leaves(embed), is_first), 2)
    keys = jax.random.split(key, prev_action.shape[1])

    def step(state, inputs):
        key, prev_action, embed, is_first = inputs
        state, aux = model.observe(params, key, state, prev_action, embed, is_first)
        return state, (state, aux)

    inputs = (keys, *jax.tree.map(time_first, (prev_action, embed, is_first)))
    state, (states, aux) = jax.lax.scan(step, state, inputs)
    return state, jax.tree.map(time_first, states), jax.tree.map(time_first, aux)  # [T, B] -> [B, T]


def filter_steps(model, params, key, steps, action_spec):
    """Posterior states along records, from the initial state on.

    Args:
      steps: Step [B, T, ...], actions as the environment takes them; action_spec: its ActionSpec.
    Returns:
      As `filter`.
    """
    chex.assert_equal_shape_prefix(jax.tree.leaves(steps), 2)
    prev_action = model_action(steps.prev_action, action_spec)  # [B, T, A]
    embed = unfold_like(model.encode(params, fold(steps.obs)), prev_action)
    start = model.initial(params, prev_action.shape[0])
    state, states, aux = filter(
        model, params, key, start, prev_action=prev_action, embed=embed, is_first=steps.is_first
    )
    if model.with_reward is not None:
        state, states = model.with_reward(state, steps.reward[:, -1]), model.with_reward(states, steps.reward)
    return state, states, aux


def begin(model, params, key, obs, action_spec):
    """The posterior state at the first observation of an episode, obs [B, ...] as of Step."""
    rows = image_of(obs).shape[0]
    none = jnp.zeros((rows, action_spec.size))
    past, embed = model.initial(params, rows), model.encode(params, obs)
    return model.observe(params, key, past, none, embed, jnp.ones(rows, bool))[0]


def open_loop(model, params, key, state, actions):
    """Prior states under given actions.

    Args: state of B rows; actions float32 [H, B, A], time first because planners and scans want it so.
    Returns: states with leading axes [H, B]; states[h] is the arrival after actions[h].
    """
    chex.assert_rank(actions, 3)
    keys = jax.random.split(key, actions.shape[0])

    def step(state, inputs):
        key, action = inputs
        state = model.imagine(params, key, state, action)
        return state, state

    return jax.lax.scan(step, state, (keys, actions))[1]


def closed_loop(model, params, key, state, policy, horizon):
    """Prior states under a policy.

    Args:
      state: model state of B rows; policy(key, features [B, ...]) -> action float32 [B, A]; horizon: H >= 0.
    Returns:
      (states, actions): states with leading axes [H + 1, B], the given one first; actions [H, B, A], time first;
      states[h + 1] is the arrival after actions[h].
    """
    if horizon < 0:
        raise UsageError(f"horizon {horizon}: must be 0 or more")
    keys = jax.random.split(key, (horizon, 2))

    def step(state, keys):
        action = policy(keys[0], model.features(params, state))
        chex.assert_rank(action, 2)
        state = model.imagine(params, keys[1], state, action)
        return state, (state, action)

    _, (states, actions) = jax.lax.scan(step, state, keys)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states), actions


def branch(model, params, key, state, first_actions, policy, horizon):
    """Prior states under a policy, in K rollouts of every row whose first actions are given.

    Args: as `closed_loop`, policy of B * K rows; first_actions: float32 [B, K, A]; horizon: H >= 1.
    Returns: (states, actions) with leading axes [H, B * K], the arrivals and what led there; row b * K + k is of row b.
    """
    if horizon < 1:
        raise UsageError(f"horizon {horizon}: must be at least 1, that of the first actions")
    chex.assert_rank(first_actions, 3)
    chex.assert_equal_shape_prefix((first_actions, *jax.tree.leaves(state)), 1)
    rows = jax.tree.map(lambda x: jnp.repeat(x, first_actions.shape[1], axis=0), state)
    first = fold(first_actions)
    first_key, rest_key = jax.random.split(key)
    arrived = model.imagine(params, first_key, rows, first)
    states, actions = closed_loop(model, params, rest_key, arrived, policy, horizon - 1)
    return states, jnp.concatenate([first[None], actions])


def rollout(model, params, key, state, policy, horizon):
    """Imagine `horizon` steps under a policy, as arrival records.

    Args: as `closed_loop`.
    Returns:
      (last state, Step [B, H, ...]): arrival records with obs None and is_first, is_last False; discount is the
      predicted probability that the episode goes on.
    """
    states, actions = closed_loop(model, params, key, state, policy, horizon)
    arrivals = jax.tree.map(lambda x: x[1:], states)
    reward, discount = (time_first(head(model, params, arrivals)) for head in (rewards, discounts))  # [B, H]
    last = jax.tree.map(lambda x: x[-1], states)
    actions = time_first(actions)
    never = jnp.zeros(actions.shape[:2], bool)
    return last, Step(prev_action=actions, obs=None, reward=reward, discount=discount, is_first=never, is_last=never)


def overshoot(model, params, key, states, *, prev_action, is_first, distance):
    """Priors of distances 2..D from every posterior state (latent overshooting, PlaNet section 4).

    Row (b, t) of distance d is the belief about time t from observations up to t - d; one scan over d advances all
    B*T rows at once, shifting the starting points by one each time:

        d=1   s1|0 s2|1 s3|2 s4|3          starts 0 1 2 3
        d=2        s2|0 s3|1 s4|2          starts   0 1 2

    Args:
      states: posterior states with leading axes [B, T]; prev_action [B, T, A]; is_first [B, T]; distance: D >= 2.
    Returns:
      (priors, valid): priors with leading axes [D - 1, B, T]; valid bool [D - 1, B, T], False where the prediction
      would start before the chunk or before the episode's first step.
    """
    if distance < 2:
        raise UsageError(f"distance {distance} of overshooting: must be at least 2")
    chex.assert_rank([prev_action, is_first], [3, 2])
    batch, time = is_first.shape
    keys = jax.random.split(key, distance)

    def step(carry, key):
        state, valid = carry  # about time t - 1
        state = jax.tree.map(shift, state)  # now indexed by the time it predicts
        valid = shift(valid) & ~is_first
        state = model.imagine(params, key, fold(state), fold(prev_action))
        state = jax.tree.map(lambda x: x.reshape(batch, time, *x.shape[1:]), state)
        return (state, valid), (state, valid)

    _, (priors, valid) = jax.lax.scan(step, (states, jnp.ones((batch, time), bool)), keys)
    return jax.tree.map(lambda x: x[1:], (priors, valid))  # distance 1 is the ordinary KL


def predict_rewards(model, params, key, state, actions):
    """Predicted rewards under given actions.

    Args: as `open_loop`.
    Returns: (rewards, discounts): mean rewards and probabilities that the episode goes on after each action, float32
      [H, B] each.
    """
    if model.rewards is not None:
        reward = model.rewards(params, key, state, actions)
        return reward, jnp.ones_like(reward)
    states = open_loop(model, params, key, state, actions)
    return rewards(model, params, states), discounts(model, params, states)


def rewards(model, params, states):
    """Mean rewards of states with two leading axes, folded into one batch. Returns float32 with the same two axes."""
    return unfold_like(model.reward(params, fold(states)), states)


def discounts(model, params, states):
    """Continuation probabilities of states with two leading axes. Returns float32 with the same two axes."""
    return unfold_like(model.discount(params, fold(states)), states)
