"""The parts of a run of Smaller World Models, made from its config.

Everything here has a leading axis of members [S] where it says so; see `wmjax.run.lifecycle`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.smaller_world_models.config import BLOCKS, EvalConfig, PolicyConfig, TrainConfig
from wmjax import envs, imagine, replay
from wmjax.agents import ppo
from wmjax.agents.open_loop import open_loop_images
from wmjax.models import vq_convlstm
from wmjax.nets.policy import GridPolicy, ImagePolicy, VectorPolicy
from wmjax.ops import frames
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, time_first, unfold_like
from wmjax.ops.batching import mapped
from wmjax.report.video import tile
from wmjax.run import lifecycle
from wmjax.run.cli import build
from wmjax.run.members import Member, make_members, member_keys, pick
from wmjax.storage import checkpoint, workdir
from wmjax.types import Actor, Learner, UsageError, WorldModel

# Parameters, in the order of fit's grad_finite.
TRAINED = (("decoder", "encoder"), ("dynamics", "latent_head", "reward"))
PHASES = ("collect", "warm_up", "fit", "dream", "evaluate")  # of an iteration; warm_up in the first alone
DOING = dict(warm_up="warming up the autoencoder", fit="fitting the model", dream="training the policy in dreams")
BINS = 20  # points on the curves of one training phase
DISPATCHED = dict(warm_up=100, fit=10, dream=10)  # updates of one dispatch, of all members: seconds on two cores
CONTEXT, PREDICTED = 5, 50  # frames seen, and in all, of open-loop predictions
HELD_OUT = 4  # evaluation episodes whose first FILM steps are foretold
FILM = 500  # frames of an evaluation's video
FRAMES_A_SECOND = 15  # of videos: the game's own time at four frames a decision


class Settings(NamedTuple):
    """Every block of the config as its dataclass."""

    members: tuple[Member, ...]  # tasks and seeds of the agents in this program
    env: dict
    model: vq_convlstm.VQConvLSTMConfig
    policy: PolicyConfig
    agent: ppo.PPOConfig
    train: TrainConfig
    evaluation: EvalConfig


class Agent(NamedTuple):
    model: WorldModel
    learner: Learner
    updates: Any  # vq_convlstm.Updates
    codes: Any  # of vq_convlstm.make_codes
    image: Any  # logits of WorldModel.decode -> pixels in [0, 1]
    network: Any  # a flax module of wmjax.nets.policy
    policy: Learner
    actor: Actor


def settings(config):
    """Checks the whole config once. config: ConfigDict or dict of it; raises UsageError with the name of a bad key."""
    blocks = dict(config)
    members = make_members(blocks["task"], blocks["seed"], blocks["population"])
    built: dict[str, Any] = {name: build(cls, blocks[name], name) for name, cls in BLOCKS.items()}
    env = {name: value for name, value in dict(blocks["env"]).items() if value is not None}
    if built["train"].frames > 1:
        env["stack"] = built["train"].frames  # what the networks see; the replay keeps the newest
    return Settings(members, env=env, **built)


def is_own(config):
    """Whether the config.json of a run, a dict, is one of this experiment."""
    return "codes" in config.get("model", ()) and "frames" in config.get("train", ())


def at(values, iteration):
    """What a tuple says of an iteration: its own value, or the last one."""
    return values[min(iteration, len(values) - 1)]


def check_chunk(train, rows):
    """Raises UsageError unless a sequence for the dynamics fits into an episode of `rows` rows."""
    if train.dynamics_chunk + train.frames - 1 > rows:
        raise UsageError(
            f"config.train.dynamics_chunk={train.dynamics_chunk}: with {train.frames} frames an episode needs "
            f"{train.dynamics_chunk + train.frames - 1} rows, the longest has {rows}"
        )


def longest(is_first):
    """Rows of the longest piece of one episode in every column of is_first [T, S]: the least over columns."""
    cuts = [np.diff([0, *np.flatnonzero(column), len(column)]) for column in np.asarray(is_first).T]
    return int(min(each.max() for each in cuts))


class Restored(NamedTuple):
    """What plays in a finished or unfinished run."""

    actor: Actor
    params: Any  # of one member, [1, ...]
    task: str  # full name of its environment
    env: dict  # options of wmjax.envs.make for the images that it sees; "stack" is absent if it sees one frame
    iterations: int  # whole ones before the checkpoint was written
    updates: int  # of the dynamics until then


def restore_player(folder, member=0):
    """The acting part of a run from its newest checkpoint: Restored.

    Args: folder: of the run; member: which agent of a population, counted from 0.
    Raises: UsageError if the folder holds no run of this experiment, no good checkpoint or fewer members.
    """
    config = workdir.read_config(folder)
    if not is_own(config):
        raise UsageError(f"{folder} holds a run of another experiment")
    chosen = settings(config)
    task = pick(chosen.members, member).task
    env = envs.make(task, 1, 0, **chosen.env)  # for its spec alone
    env.close()
    agent = make_agent(chosen, env.spec)
    world_keys, policy_keys, *_ = member_keys(chosen.members, 7)
    world = jax.eval_shape(jax.vmap(agent.learner.init), world_keys)
    policy = jax.eval_shape(jax.vmap(agent.policy.init), policy_keys)
    rest = dict.fromkeys(("unfinished", "counters", "so_far", "env", "eval_env"), checkpoint.AS_SAVED)
    iterations, state = lifecycle.restore_member(folder, dict(world=world, policy=policy, **rest), member)
    params = dict(model=state["world"].params, policy=state["policy"].params)
    return Restored(agent.actor, params, task, chosen.env, iterations, int(state["world"].updates[0]))


def make_agent(chosen, env_spec):
    """World model, policy and actor. chosen: Settings; raises UsageError for images that the encoder cannot take."""
    if not env_spec.action.discrete:
        raise UsageError(f"config.task={chosen.members[0].task!r}: this agent needs discrete actions")
    model, learner = vq_convlstm.make(chosen.model, env_spec)
    if chosen.train.policy_sees == "reconstructions":
        model = vq_convlstm.through_reconstructions(chosen.model, model)
    network, seen = make_network(chosen, model, env_spec)
    policy = ppo.make(chosen.agent, network, seen)
    actor = ppo.make_actor(model, network, chosen.agent)
    updates, codes = vq_convlstm.make_updates(chosen.model, env_spec), vq_convlstm.make_codes(chosen.model, env_spec)
    image = vq_convlstm.pixel_likelihood(chosen.model).mean
    return Agent(model, learner, updates, codes, image, network, policy, actor)


def make_network(chosen, model, env_spec):
    """(a policy network for the features that the model shows, their number)."""
    grid = jax.eval_shape(lambda: model.initial(None, 1)).latent.shape[1:]
    actions, policy = env_spec.action.size, chosen.policy
    sizes = dict(channels=policy.channels, kernel=policy.kernel, widths=(policy.hidden,))
    if chosen.train.policy_sees == "reconstructions":
        network = ImagePolicy(actions, env_spec.obs_shape, chosen.model.encoder_widths, **sizes)
        return network, int(np.prod(env_spec.obs_shape))
    if grid[:2] == (1, 1):
        return VectorPolicy(actions, (policy.hidden, policy.hidden)), grid[2]
    return GridPolicy(actions, grid, **sizes), int(np.prod(grid))


def newest(steps, count):
    """The newest `count` frames' own channels of stacked images: what a replay of single frames holds."""
    return steps.replace(obs=steps.obs[..., -(steps.obs.shape[-1] // count) :])


def stacked(steps, count):
    """Step [B, T, ...] of single frames -> Step [B, T - count + 1, ...] whose images are stacks of `count`."""
    stacks = frames.stack(steps.obs, steps.is_first, count)
    return jax.tree.map(lambda x: x[:, count - 1 :], steps.replace(obs=stacks))


def summed(update, first, stop, state, key):
    """Updates `first` to `stop` - 1 of (state, key) -> (state, metrics). Returns: (state, float32 sums of metrics)."""
    shapes = jax.eval_shape(update, state, key)[1]
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)

    def step(i, carry):
        state, total = carry
        state, metrics = update(state, jax.random.fold_in(key, i))
        return state, jax.tree.map(jnp.add, total, metrics)

    return jax.lax.fori_loop(first, stop, step, (state, nothing))


def repeated(update, count, state, key):
    """`count` >= 1 times (state, key) -> (state, metrics). Returns: (state, means of the metrics, as float32)."""
    state, total = summed(update, 0, count, state, key)
    return state, jax.tree.map(lambda x: x / count, total)


def phase(update, place):
    """One dispatch of a phase of all members: some of the updates that make one point of its curve.

    Args: update: (state, memory, key, *numbers) -> (state, metrics) of one member; place: sharding of the results.
    Returns: a jitted (states [S], memories [S], keys [S] of the phase, point, first, stop, *numbers) -> (states [S],
      sums [S] of the metrics): updates `first` to `stop` - 1 of that point, the same ones however a point is cut.
      Numbers may change from call to call without compiling again.
    """

    def run(states, memories, keys, point, first, stop, *numbers):
        def one(state, memory, key):
            step = lambda state, key: update(state, memory, key, *numbers)
            return summed(step, first, stop, state, jax.random.split(key, BINS)[point])

        return mapped(one)(states, memories, keys)

    return jax.jit(run, donate_argnums=0, out_shardings=place)


class Curve(NamedTuple):
    """A phase of training: BINS points of so many updates."""

    updates: int
    each: int  # what one of them counts for in the metrics: those of the dynamics
    numbers: tuple  # for all of them

    def part(self, name, done, members):
        """(point, first, stop) of the dispatch of all members that comes after `done` updates of the phase `name`."""
        point, first = divmod(done, self.updates)
        return point, first, min(first + max(1, DISPATCHED[name] // members), self.updates)


def trained(name, model_params, policy_params):
    """The parameters that a phase trains, in the order of its grad_finite."""
    if name == "dream":
        return policy_params
    blocks = [{key: model_params[key] for key in names} for names in TRAINED]
    return blocks if name == "fit" else blocks[0]


def curve(name, train, iteration, kept):
    """The Curve of a phase in an iteration. kept: rows of the replay."""
    if name == "warm_up":
        updates = train.warmup_epochs * kept / train.autoencoder_batch
        return Curve(per_point(updates), 1, (np.float32(train.warmup_rate),))
    if name == "fit":
        interval = at(train.intervals, iteration)
        updates = at(train.epochs, iteration) * kept / (train.dynamics_batch * train.dynamics_chunk)
        return Curve(per_point(updates / interval), interval, (np.int32(interval),))
    return Curve(per_point(at(train.rounds, iteration)), 1, ())


def make_warm_up(agent, train, place):
    """A phase of updates of the autoencoder alone; its number is the rate."""

    def update(state, memory, key, rate):
        sample_key, key = jax.random.split(key)
        batch = stacked(replay.sample(memory, sample_key, train.autoencoder_batch, train.frames), train.frames)
        return agent.updates.autoencoder(state, key, batch.obs[:, 0], rate)

    return phase(update, place)


def make_fit(agent, train, place):
    """A phase of cycles: one update of the autoencoder, then as many of the dynamics as its number says."""
    length = train.dynamics_chunk + train.frames - 1

    def dynamics(memory, state, key):
        sample_key, key = jax.random.split(key)
        batch = replay.sample_within_episodes(memory, sample_key, train.dynamics_batch, length)
        return agent.updates.dynamics(state, key, stacked(batch, train.frames))

    def update(state, memory, key, interval):
        sample_key, autoencoder_key, dynamics_key = jax.random.split(key, 3)
        batch = stacked(replay.sample(memory, sample_key, train.autoencoder_batch, train.frames), train.frames)
        state, metrics = agent.updates.autoencoder(state, autoencoder_key, batch.obs[:, 0])
        state, more = repeated(functools.partial(dynamics, memory), interval, state, dynamics_key)
        finite = jnp.concatenate([metrics.pop("grad_finite"), more.pop("grad_finite")])
        return state, metrics | more | dict(grad_finite=finite)

    return phase(update, place)


def make_dream(agent, train, place):
    """A phase of PPO rounds on imagined episodes from random frames of the replay; its state: (model's, policy's)."""

    def update(state, memory, key):
        world, policy = state
        sample_key, start_key, imagine_key, update_key = jax.random.split(key, 4)
        batch = stacked(replay.sample(memory, sample_key, train.imagined_batch, train.frames), train.frames)
        start = begin(agent, world.params, start_key, batch.obs[:, 0])
        params = (world.params, policy.params)
        rollout = ppo.dream(agent.model, agent.network, *params, imagine_key, start, train.imagined_steps)
        policy, metrics = agent.policy.update(policy, update_key, rollout)
        return (world, policy), metrics

    return phase(update, place)


def begin(agent, params, key, obs):
    """The model's state at the first image of an episode, obs uint8 [B, X, Y, C]."""
    rows = obs.shape[0]
    no_action = jnp.zeros((rows, agent.network.actions))
    past, embed = agent.model.initial(params, rows), agent.model.encode(params, obs)
    state, _ = agent.model.observe(params, key, past, no_action, embed, jnp.ones(rows, bool))
    return state


def per_point(updates):
    """The number of updates for each point of a phase's curve, so that about `updates` are made in all."""
    return max(1, round(updates / BINS))


def make_predict(agent, env_spec, count):
    """A jitted function (params, key, Step [T, 1]) -> uint8 [T, X, Y, 1 or 3]: open-loop images, the newest frame."""
    channels = env_spec.obs_shape[-1] // count

    def predict(params, key, steps):
        logits = open_loop_images(agent.model, params, key, steps, action_spec=env_spec.action, context=CONTEXT)
        means = agent.image(logits[:, 0, ..., -channels:])
        return jnp.round(255 * means).astype(jnp.uint8)

    return jax.jit(predict)


def windows(steps):
    """Step [T, E] -> Step [B, PREDICTED]: the first HELD_OUT rows cut into pieces, what is left over dropped.

    Rows shorter than one piece (no game is) give pieces as long as they are.
    """
    steps = jax.tree.map(lambda x: x[:, :HELD_OUT], steps)
    length = min(PREDICTED, len(steps.reward))
    count = len(steps.reward) // length
    cut = jax.tree.map(lambda x: x[: count * length].reshape(count, length, *x.shape[1:]), steps)
    return jax.tree.map(lambda x: np.moveaxis(x, 2, 1).reshape(-1, length, *x.shape[3:]), cut)


def make_foretell(agent, env_spec, count):
    """A jitted function (params, key, Replay, Step [B, T] never trained on) -> metrics: shares of latents foretold.

    latent_*: of each next step, from all before it in its piece; dreamt_*: of all steps after the first CONTEXT ones,
    open loop. *_accuracy: drawn by the model; *_copy: those of the last image seen; *_majority: the most frequent one
    at each position in 1,000 images of the replay. reward_expected, reward_true: sums of expected and of true rewards
    (clipped to -1, 0, 1) over the next steps; open_loop_reward_*: over the steps of the open loop. A reward head that
    is overfit expects fewer than there are. What follows the beginning of another episode does not count.
    """

    def foretell(params, key, memory, steps):
        filter_key, next_key, open_key, sample_key = jax.random.split(key, 4)
        some = stacked(replay.sample(memory, sample_key, 1000, count), count).obs[:, 0]
        common = most_frequent(agent.codes(params, begin(agent, params, filter_key, some)))[None, None]

        def codes(states):
            """Of states with leading axes [B, T]."""
            return unfold_like(agent.codes(params, jax.tree.map(fold, states)), jax.tree.leaves(states)[0])

        action = model_action(steps.prev_action, env_spec.action)
        _, states, _ = imagine.filter(
            agent.model,
            params,
            filter_key,
            agent.model.initial(params, len(action)),
            prev_action=action,
            embed=unfold_like(agent.model.encode(params, fold(steps.obs)), action),
            is_first=steps.is_first.at[:, 0].set(True),
        )
        context = min(CONTEXT, action.shape[1] - 1)
        before, start = (jax.tree.map(lambda x, at=at: x[:, at], states) for at in (slice(0, -1), context - 1))
        after = agent.model.imagine(params, next_key, jax.tree.map(fold, before), fold(action[:, 1:]))
        after = jax.tree.map(lambda x: unfold_like(x, action[:, 1:]), after)
        dreamt = imagine.open_loop(agent.model, params, open_key, start, time_first(action[:, context:]))

        truth = codes(states)  # [B, T, X, Y]
        counts = jnp.cumsum(steps.is_first[:, 1:], axis=1) == 0

        def shares(name, guesses, first):
            """guesses: each [B, T - first, X, Y] or broadcast to it, of truth[:, first:]."""
            same = {key: (guess == truth[:, first:]).mean((2, 3)) for key, guess in guesses.items()}
            return {f"{name}_{key}": jnp.average(x, weights=counts[:, first - 1 :]) for key, x in same.items()}

        def rewards(name, states, first):
            """states: of arrivals first, first + 1, ..., with leading axes [B, T - first]."""
            seen = dict(expected=imagine.rewards(agent.model, params, states))
            seen["true"] = jnp.round(jnp.clip(steps.reward[:, first:], -1.0, 1.0))
            return {f"{name}_{key}": (x * counts[:, first - 1 :]).sum() for key, x in seen.items()}

        dreamt = jax.tree.map(time_first, dreamt)
        one_step = dict(accuracy=codes(after), copy=truth[:, :-1], majority=common)
        open_loop = dict(accuracy=codes(dreamt), copy=truth[:, context - 1 : context], majority=common)
        found = shares("latent", one_step, 1) | shares("dreamt", open_loop, context)
        found |= rewards("reward", jax.tree.map(lambda x: x[:, 1:], states), 1)
        return found | rewards("open_loop_reward", dreamt, context)

    return jax.jit(foretell)


def most_frequent(codes):
    """int32 [N, X, Y] -> [X, Y]: the most frequent one at each position."""
    same = (codes[:, None] == codes[None]).sum(1)  # [N, X, Y]: how many images have the code that this one has
    return jnp.take_along_axis(codes, same.argmax(0)[None], axis=0)[0]


def make_reconstruct(agent, env_spec, count):
    """A jitted function (params, obs uint8 [B, X, Y, C]) -> (codes int32 [B, G, G], uint8 [B, X, Y, 1 or 3])."""
    channels = env_spec.obs_shape[-1] // count

    def reconstruct(params, obs):
        state = begin(agent, params, jax.random.key(0), obs)
        logits = agent.model.decode(params, state)
        means = agent.image(logits[..., -channels:])
        return agent.codes(params, state), jnp.round(255 * means).astype(jnp.uint8)

    return jax.jit(reconstruct)


def code_picture(obs, codes, reconstructions):
    """Frames above their codes, each code in a random colour of its own, above reconstructions (as in Fig. 10).

    Args: obs, reconstructions: uint8 [B, X, Y, 1 or 3]; codes: int32 [B, G, G].
    Returns: uint8 [3 * X + gaps, B * Y + gaps, 3].
    """
    colours = np.random.default_rng(0).integers(0, 256, (1 + int(codes.max()), 3)).astype(np.uint8)
    height, width = (side // cells for side, cells in zip(obs.shape[1:3], codes.shape[1:], strict=True))
    maps = colours[codes].repeat(height, axis=1).repeat(width, axis=2)
    return np.concatenate([tile(images[:, None])[0] for images in (obs, maps, reconstructions)])


def finished_returns(steps, unfinished):
    """Returns of the episodes that ended in Step [T, S]: (a list for every row, what the others have so far [S])."""
    ended, left = [], []
    for reward, is_last, total in zip(steps.reward.T, steps.is_last.T, unfinished, strict=True):
        cuts = np.flatnonzero(is_last) + 1
        sums = [float(part.sum()) for part in np.split(reward.astype(np.float64), cuts)]
        sums[0] += total
        ended.append(sums[:-1])
        left.append(sums[-1])
    return ended, np.array(left)


def last_window(steps, length):
    """The newest `length` rows inside one episode of Step [T, E] in row 0, or the last ones if there are none."""
    begun = np.flatnonzero(steps.is_first[:, 0])
    ends = [*begun[::-1], 0] if not len(begun) or begun[0] else begun[::-1]
    stop = len(steps.reward)
    for start in ends:
        if stop - start >= length:
            return jax.tree.map(lambda x, stop=stop: x[stop - length : stop, :1], steps)
        stop = start
    return jax.tree.map(lambda x: x[-length:, :1], steps)
