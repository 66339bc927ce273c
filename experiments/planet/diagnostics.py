"""How much of the simulator's state the latent states of a finished run hold (PlaNet, Fig. 11).

    python -m experiments.planet.diagnostics --workdir=runs/a --episodes=20

Plays episodes with the agent of the newest checkpoint, exploration noise included. Its model stays as it is. In three
quarters of the episodes a small network learns the true positions, velocities and rewards from the features of the
posterior. In the others the model sees 5 frames and goes on for 45 steps open loop, from the actions alone, and the
network reads the quantities from the features of every step. R2 of a quantity after so many steps:

    1 - mean squared error / mean squared distance from the quantity's mean in the fitting episodes

Beside it the R2 of the value at the last frame seen, as if nothing moved. Writes diagnostics.md, diagnostics.png and
diagnostics.json into the run's folder.
"""

import functools
import json
import pathlib
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from experiments.planet.agent import load, test_env
from wmjax import console, imagine
from wmjax.nets.mlp import MLP
from wmjax.ops.actions import model_action
from wmjax.ops.axes import fold, time_first, unfold_like
from wmjax.report import plots
from wmjax.report.markup import markdown
from wmjax.run import cli
from wmjax.run.collect import make_player, play_episodes
from wmjax.run.members import alone, member
from wmjax.run.stopwatch import Stopwatch
from wmjax.storage import workdir
from wmjax.storage.files import write_whole
from wmjax.types import ActionSpec, Array, Params, State, Step, UsageError, WorldModel

CONTEXT, HORIZON = 5, 45  # frames seen, steps open loop (Fig. 11)
TABLE_STEPS = (0, 1, 5, 10, 20, 45)  # steps of the table
FAMILIES = ("dmc", "fake")  # of environments that show their state beside the image
WIDTHS = (300, 300, 300)  # of the network, as in the authors' code
BATCH, LEARNING_RATE = 256, 1e-3  # not in the paper
SHOWN = (-1.2, 1.05)  # R2 in the picture
ABOUT = """{task}, checkpoint after {checkpoint_episodes} episodes and {updates} updates. {episodes} episodes with
exploration noise, mean return {return_mean:.1f}. In {fitting_episodes} of them a network learned the quantities from
the posterior's features, in {network_updates} updates. In the others they are predicted, in {windows} windows of
{context} frames seen and {steps} steps open loop; step 0 is the last frame seen. The mean of the fitting episodes has
an R2 of 0. The last value is that at the last frame seen."""


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of this command. values: absl's FlagValues of one call; argv: its command line."""
    cli.path_flag(values, "workdir", "folder of the run")
    cli.int_flag(values, "episodes", 20, "episodes, played at once; three quarters of them are for fitting", 4, 200)
    cli.int_flag(values, "updates", 1000, "updates of the small network", 1, 10**6)
    cli.int_flag(values, "member", 0, "which agent of a population, counted from 0", 0)
    cli.int_flag(values, "seed", 0, "seed of the episodes, the planner and the network", 0, 10**9)


def main(argv: list[str]) -> None:
    """Plays, fits and measures once. argv: the command line."""
    options = cli.parse_flags(argv, define_flags, __name__)
    folder = cli.run_folder(options)
    workdir.check_writable_run(folder)
    cli.use_jax()
    loaded = load(folder, options.member)
    check_task(loaded.task)
    env = test_env(loaded, options.episodes, options.seed, observe="image+state")
    player = make_player(loaded.agent.actor, options.episodes, explore=True)
    play_key, fit_key, filter_key, open_key = jax.random.split(jax.random.key(options.seed), 4)
    steps, returns = play_episodes(env, player, alone(loaded.params), play_key[None], Stopwatch())
    console.say(f"{options.episodes} episodes, mean return {np.mean(returns):.1f}")

    names, true = quantities(steps)
    fitting = options.episodes * 3 // 4
    true = standardised(true, fitting)  # [T, E, D]
    model, action_spec, params = loaded.agent.model, env.spec.action, loaded.params
    network = MLP(WIDTHS, len(names))
    posterior = jax.jit(functools.partial(posterior_features, model, action_spec))
    features = [posterior(params, jax.random.fold_in(filter_key, e), row(steps, e)) for e in range(fitting)]
    targets = np.swapaxes(true[:, :fitting], 0, 1)  # [E, T, D], as features are [E, T, F]
    heads = fit_heads(network, fit_key, fold(jnp.stack(features)), fold(targets), options.updates)

    tested, true = member(steps, (slice(None), slice(fitting, None))), true[:, fitting:]
    length = min(CONTEXT + HORIZON, longest_episode(tested.is_first))
    if length <= CONTEXT:
        raise UsageError(f"{loaded.task}: no test episode has more than {CONTEXT} images")
    predict = jax.jit(functools.partial(predict_quantities, model, network, action_spec))
    predicted, true = in_windows(functools.partial(predict, params, heads), open_key, tested, true, length)
    r2 = {"model": r2_by_step(predicted, true), "last value": r2_by_step(true[:, :1], true)}
    about = dict(task=loaded.task, member=options.member, checkpoint_episodes=loaded.episodes, updates=loaded.updates)
    about |= dict(seed=options.seed, episodes=options.episodes, return_mean=float(np.mean(returns)))
    about |= dict(fitting_episodes=fitting, network_updates=options.updates, windows=len(true))
    write_results(folder, about, names, r2)


def check_task(task: str) -> None:
    """Raises UsageError for the full name of an environment that does not show its state as numbers."""
    if task.partition(":")[0] not in FAMILIES:
        raise UsageError(f"{task} shows no numbers of its state: only {' and '.join(FAMILIES)} environments do")


def quantities(steps: Step) -> tuple[list[str], np.ndarray]:
    """What is measured of every step: each number that is observed beside the image, and the reward.

    Args: steps: Step [T, E] with dicts as observations.
    Returns: (names, float32 [T, E, D]): "position 0", "position 1", ..., "height" of a single one, ..., "reward".
    """
    parts = {name: x for name, x in sorted(steps.obs.items()) if name != "image"} | dict(reward=steps.reward[..., None])
    names = [f"{name} {i}" if x.shape[-1] > 1 else name for name, x in parts.items() for i in range(x.shape[-1])]
    return names, np.concatenate(list(parts.values()), axis=-1)


def standardised(true: np.ndarray, fitting: int) -> np.ndarray:
    """float32 [T, E, D] in standard deviations from the mean, both of the first `fitting` columns E.

    What does not vary there keeps its unit, and is 0 there.
    """
    known = true[:, :fitting].reshape(-1, true.shape[-1])
    varies = known.max(axis=0) > known.min(axis=0)
    mean = np.where(varies, known.mean(axis=0, dtype=np.float64), known[0])
    deviation = np.where(varies, known.std(axis=0, dtype=np.float64), 1)
    return ((true - mean) / deviation).astype(np.float32)


def row(steps: Step, e: int) -> Step:
    """Row e of Step [T, E] as a batch of one, Step [1, T]."""
    return jax.tree.map(lambda x: x[None, :, e], steps)


def longest_episode(is_first: np.ndarray) -> int:
    """Most rows of an episode in bool [T, E], each of whose columns begins with one."""
    return int(np.diff(np.flatnonzero(np.append(is_first.T, True))).max())


def windows(is_first: np.ndarray, length: int) -> np.ndarray:
    """Indices of every stretch of `length` rows of one episode, int [W, length], in bool [T]."""
    rows = np.arange(max(0, len(is_first) - length + 1))[:, None] + np.arange(length)
    return rows[~is_first[rows[:, 1:]].any(axis=1)]


def frozen_features(model: WorldModel, params: Params, states: State) -> Array:
    """Features of states with leading axes [P, Q], float32 [P, Q, F]; gradients end here."""
    features = model.features(params, fold(states))
    return jax.lax.stop_gradient(unfold_like(features.reshape(len(features), -1), states))


def posterior_features(model: WorldModel, action_spec: ActionSpec, params: Params, key: Array, steps: Step) -> Array:
    """Features of the filtering posterior, float32 [T, F], along one row, Step [1, T]."""
    _, states, _ = imagine.filter_steps(model, params, key, steps, action_spec)
    return frozen_features(model, params, states)[0]


def open_loop_features(
    model: WorldModel, action_spec: ActionSpec, params: Params, key: Array, seen: Step, actions: Array
) -> Array:
    """Features of the posterior at the last of some steps, and of the priors after each of the actions that follow.

    Args: seen: Step [W, CONTEXT]; actions: [W, H, A], or int32 [W, H], as the environment takes them.
    Returns: float32 [W, 1 + H, F].
    """
    filter_key, open_key = jax.random.split(key)
    state, _, _ = imagine.filter_steps(model, params, filter_key, seen, action_spec)
    imagined = imagine.open_loop(model, params, open_key, state, time_first(model_action(actions, action_spec)))
    states = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, imagined)
    return time_first(frozen_features(model, params, states))


def predict_quantities(
    model: WorldModel,
    network: MLP,
    action_spec: ActionSpec,
    params: Params,
    heads: Params,
    key: Array,
    seen: Step,
    actions: Array,
) -> Array:
    """Standardised quantities, float32 [W, 1 + H, D], at the steps of `open_loop_features`.

    Args: network: flax module of [N, F] -> [N, D]; heads: its parameters; the rest as in `open_loop_features`.
    """
    features = open_loop_features(model, action_spec, params, key, seen, actions)
    return unfold_like(network.apply(heads, fold(features)), features)


def heads_loss(network: MLP, heads: Params, features: Array, targets: Array) -> Array:
    """Mean squared error; features [N, F], targets [N, D]."""
    return jnp.square(network.apply(heads, features) - targets).mean()


@functools.partial(jax.jit, static_argnums=(0, 4))
def fit_heads(network: MLP, key: Array, features: Array, targets: Array, updates: int) -> Params:
    """Parameters of the network after updates by Adam.

    Args: features: float32 [N, F]; targets: float32 [N, D], standardised; updates: their number, each on BATCH rows.
    """
    init_key, batch_key = jax.random.split(key)
    heads = network.init(init_key, features[:1])
    optimizer = optax.adam(LEARNING_RATE)

    def update(carry: tuple[Params, Any], key: Array) -> tuple[tuple[Params, Any], None]:
        heads, opt_state = carry
        rows = jax.random.randint(key, (BATCH,), 0, len(features))
        grads = jax.grad(heads_loss, argnums=1)(network, heads, features[rows], targets[rows])
        changes, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(heads, changes), opt_state), None

    return jax.lax.scan(update, (heads, optimizer.init(heads)), jax.random.split(batch_key, updates))[0][0]


def in_windows(
    predict: Callable, key: Array, steps: Step, true: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """What is predicted, and what is true, at the last frame seen and after each action of every window of `length`.

    Args: predict: (key, seen, actions) -> [W, 1 + H, D], as `predict_quantities`; steps: Step [T, E]; true: [T, E, D].
    Returns: (predicted, true), float32 [N, 1 + H, D] each, the windows of one episode after those of the other.
    """
    pairs = []
    for e in range(true.shape[1]):
        rows = windows(steps.is_first[:, e], length)
        if len(rows):
            seen, actions = member(steps, (rows[:, :CONTEXT], e)), steps.prev_action[rows[:, CONTEXT:], e]
            predicted = predict(jax.random.fold_in(key, e), seen, actions)
            pairs.append((np.asarray(predicted), true[rows[:, CONTEXT - 1 :], e]))
    predicted, true = zip(*pairs, strict=True)
    return np.concatenate(predicted), np.concatenate(true)


def r2_by_step(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """R2 of each step and quantity, against the mean of the fitting episodes, which is 0.

    Args: predicted, true: [N, 1 + H, D], standardised.
    Returns: float64 [1 + H, D]; nan where the truth is that mean in every window.
    """
    error, spread = (np.square(np.float64(x)).mean(axis=0) for x in (true - predicted, true))
    return 1 - np.divide(error, spread, out=np.full(error.shape, np.nan), where=spread > 0)


def write_results(
    folder: pathlib.Path, about: dict[str, Any], names: Sequence[str], r2: Mapping[str, np.ndarray]
) -> None:
    """Writes the three files and says the medians over the quantities.

    Args: about: what was measured, by name; names: of the quantities; r2: {"model": [1 + H, D], "last value": ...}.
    """
    steps = [step for step in TABLE_STEPS if step < len(r2["model"])]
    quantity = [(name, {kind: x[:, i] for kind, x in r2.items()}) for i, name in enumerate(names)]
    medians = ("median", {kind: np.nanmedian(x, axis=1) for kind, x in r2.items()})
    rows = [[f"{name}, {kind}", *map(number, x[steps])] for name, of in [medians, *quantity] for kind, x in of.items()]
    table = markdown(["R2 after steps", *map(str, steps)], rows)
    text = textwrap.fill(ABOUT.format(**about, context=CONTEXT, steps=len(r2["model"]) - 1), 120)
    write_whole(folder / "diagnostics.md", "\n".join(["# State diagnostics", "", text, "", *table, ""]))
    numbers = {name: {kind: list(map(finite, x)) for kind, x in of.items()} for name, of in quantity}
    write_whole(folder / "diagnostics.json", json.dumps(about | dict(r2=numbers), indent=1) + "\n")
    drawn = console.try_drawing(draw, folder / "diagnostics.png", dict(quantity))
    console.say("\n".join(table[:4]))
    console.say(f"all quantities: {folder / 'diagnostics.md'}; curves: {drawn or 'could not be drawn'}")


def number(x: float) -> str:
    """A cell of the table."""
    return f"{x:.2f}" if np.isfinite(x) else "-"


def finite(x: float) -> float | None:
    """A number of the JSON file, which has no nan."""
    return float(x) if np.isfinite(x) else None


def draw(path: pathlib.Path, curves: Mapping[str, Any]) -> pathlib.Path:
    """Writes the picture. curves: {quantity: {"model": [1 + H], "last value": [1 + H]}}."""
    return write_whole(path, plots.panels(curves, "steps open loop", "R2", SHOWN))


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
