"""The same work by other libraries, where they are installed (`pip install -e .[bench]`), as they come.

torchrl and simulusion have PlaNet's network, its CEM and its update; xwm has a CEM for a network of one's own; flashbax
a replay on the device; dm_control the suite itself; ale-py and gymnasium the Atari games. Sizes, candidates and numbers
of parameters are those of our own work that they stand beside.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import multiprocessing
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging

from wmjax import console
from wmjax.envs import gl
from wmjax.models import rssm
from wmjax.planners import CEMConfig
from wmjax.report.benchmark import Finding, Work, compiled
from wmjax.run.members import alone
from wmjax.types import Array, EnvSpec, Params, State, Step


@functools.cache
def installed(library: str) -> bool:
    """Whether a rival can be measured here; says so where it cannot."""
    found = importlib.util.find_spec(library) is not None
    if not found:
        console.say(f"{library} is not installed: pip install -e .[bench] to see it here")
    return found


def apart(make: Callable, *args: Any) -> Callable[[], None]:
    """A function that calls make(*args)() in a process of its own and waits for it.

    In ours torch's allocations and its threads, which spin before they sleep, would slow both down.
    """
    ours, theirs = multiprocessing.Pipe()
    multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, make, args), daemon=True).start()

    def call() -> None:
        ours.send(None)
        ours.recv()

    return call


def serve(connection: Any, make: Callable, args: tuple) -> None:
    """The other end of `apart`: one call for every message, until its parent ends."""
    call = make(*args)
    with contextlib.suppress(EOFError):
        while True:
            connection.recv()
            call()
            connection.send(None)


def decisions(reference: Work, rows: int, config: CEMConfig, spec: EnvSpec) -> Iterator[Work]:
    """Decisions for `rows` environments by the planners of the rivals that are installed, beside `reference`, ours."""
    suffix = f"{rows} env{'s' if rows > 1 else ''}"
    for library, make in (("torchrl", torchrl_decide), ("simulusion", simulusion_decide)):
        if installed(library):
            call = apart(make, rows, config, spec.action.size)
            tags = dict(kind=library, envs=rows)
            yield Work(f"{library}, {suffix}", call, {"decisions": rows}, tags=tags, reference=reference)
    if installed("xwm"):
        theirs = xwm_planner(f"xwm's CEM, our RSSM, {suffix}", rows, config, spec)
        yield dataclasses.replace(theirs, reference=reference)


def updates(reference: Work, batch: int, time: int, action_size: int) -> Iterator[Work | Finding]:
    """Updates by the rivals that are installed, beside `reference`, ours; a Finding says which has none."""
    for library, make in (("torchrl", torchrl_step), ("simulusion", simulusion_step)):
        if installed(library):
            call = apart(make, batch, time, action_size)
            amounts = {"frames": batch * time, "updates": 1}
            yield Work(f"{library}, {batch} x {time}", call, amounts, reference=reference)
    if installed("xwm"):
        lacking = dict(left_out="xwm has no RSSM and no decoder of images: nothing like it to update")
        yield Finding(f"xwm, {batch} x {time}", lambda: lacking)


def torchrl_networks(action_size: int) -> dict[str, Any]:
    """PlaNet's networks of torchrl as modules by name: prior, posterior, encoder, decoder, reward."""
    import torch
    from torchrl.modules import MLP, ObsDecoder, ObsEncoder, RSSMPosterior, RSSMPrior

    torch.manual_seed(0)
    return dict(
        prior=RSSMPrior(torch.zeros(action_size), action_dim=action_size),
        posterior=RSSMPosterior(rnn_hidden_dim=200, obs_embed_dim=1024),
        encoder=ObsEncoder(in_channels=3),
        decoder=ObsDecoder(latent_dim=230),
        reward=MLP(in_features=230, out_features=1, depth=2, num_cells=200, activation_class=torch.nn.ELU),
    )


def torchrl_decide(rows: int, config: CEMConfig, action_size: int) -> Callable[[], None]:
    """A function that plans for `rows` environments, one at a time: torchrl's cell takes one batch axis."""
    import torch
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.data import Bounded, Composite, Unbounded
    from torchrl.envs import DreamerEnv
    from torchrl.modules import CEMPlanner, WorldModelWrapper

    networks = torchrl_networks(action_size)
    step = TensorDictModule(networks["prior"], ["state", "belief", "action"], ["_", "_", "state", "belief"])
    reward = TensorDictModule(networks["reward"], ["state", "belief"], ["reward"])
    env = DreamerEnv(WorldModelWrapper(step, reward), prior_shape=(30,), belief_shape=(200,), batch_size=torch.Size([]))
    latent = dict(state=Unbounded((30,)), belief=Unbounded((200,)))
    env.observation_spec, env.state_spec = Composite(latent), Composite(latent)
    env.action_spec, env.reward_spec = Bounded(-1, 1, (action_size,)), Unbounded((1,))
    planner = CEMPlanner(env, config.horizon, config.iterations, config.candidates, config.elites)
    start = TensorDict(dict(state=torch.zeros(30), belief=torch.zeros(200)), [])

    @torch.no_grad()
    def decide() -> None:
        for _ in range(rows):
            planner.planning(start)

    return decide


def torchrl_step(batch: int, time: int, action_size: int) -> Callable[[], None]:
    """A function that does one update with Adam on chunks of batch x time, images as float32."""
    import torch
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule, TensorDictSequential
    from torchrl.modules import RSSMRollout, WorldModelWrapper
    from torchrl.objectives import DreamerModelLoss

    def of_next(*names: str) -> list[tuple[str, str]]:
        return [("next", name) for name in names]

    nets = torchrl_networks(action_size)
    prior = TensorDictModule(
        nets["prior"], ["state", "belief", "action"], [*of_next("prior_mean", "prior_std"), "_", ("next", "belief")]
    )
    posterior = TensorDictModule(
        nets["posterior"],
        of_next("belief", "encoded_latents"),
        of_next("posterior_mean", "posterior_std", "state"),
    )
    encoder = TensorDictModule(nets["encoder"], of_next("pixels"), of_next("encoded_latents"))
    decoder = TensorDictModule(nets["decoder"], of_next("state", "belief"), of_next("reco_pixels"))
    reward = TensorDictModule(nets["reward"], of_next("state", "belief"), of_next("reward"))
    model = WorldModelWrapper(TensorDictSequential(encoder, RSSMRollout(prior, posterior), decoder), reward)
    loss = DreamerModelLoss(model)
    adam = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-4)
    lead = (batch, time)
    arrival = TensorDict(dict(pixels=torch.rand(*lead, 3, 64, 64) - 0.5, reward=torch.rand(*lead, 1)), lead)
    start = dict(state=torch.zeros(*lead, 30), belief=torch.zeros(*lead, 200), next=arrival)
    data = TensorDict(start | dict(action=torch.rand(*lead, action_size)), lead)

    def update() -> None:
        adam.zero_grad()
        losses, _ = loss(data.clone())
        sum(losses.values()).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1000.0)
        adam.step()

    return update


def simulusion_network(action_size: int) -> Any:
    """simulusion's RSSM at the paper's sizes; made by its `Planet`, the layers of 200 units would have 1,024."""
    import torch
    from simulusion.models.rssm import RecurrentStateSpaceModel

    torch.manual_seed(0)
    return RecurrentStateSpaceModel(action_size, state_size=200, latent_size=30, hidden_size=200, embed_size=1024)


def simulusion_decide(rows: int, config: CEMConfig, action_size: int) -> Callable[[], None]:
    """A function that plans for `rows` environments, one at a time, each after the filtering of one image."""
    import torch
    from simulusion.controller.rssm_policy import RSSMPolicy

    search = (config.horizon, config.candidates, config.iterations, config.elites)
    policy = RSSMPolicy(simulusion_network(action_size), *search, device="cpu")
    policy.reset()
    image = torch.zeros(3, 64, 64)

    def decide() -> None:
        for _ in range(rows):
            policy.poll(image)

    return decide


def simulusion_step(batch: int, time: int, action_size: int) -> Callable[[], None]:
    """A function that does one update with Adam on chunks of batch x time, and one image more, from uint8 images."""
    import torch
    from simulusion.training.train_planet import train

    network = simulusion_network(action_size)
    adam = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-4)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (time + 1, batch, 3, 64, 64)).astype(np.uint8)
    action, reward = rng.uniform(-1, 1, (time, batch, action_size)), rng.uniform(size=(time, batch))
    data = (image, action, reward, np.zeros((time, batch))), np.full(batch, time)
    memory = types.SimpleNamespace(sample=lambda *args, **settings: data)
    return lambda: train(memory, network, adam, torch.device("cpu"), batch, time)


def xwm_planner(name: str, rows: int, config: CEMConfig, spec: EnvSpec) -> Work:
    """Decisions of xwm's CEM with our RSSM as its model, one at a time; one noise is that of all candidates."""
    from xwm.planning import CEM

    model, learner = rssm.make(rssm.RSSMConfig(), spec)
    search = CEM(
        config.horizon,
        spec.action.size,
        n_samples=config.candidates,
        n_elites=config.elites,
        n_iters=config.iterations,
    )

    def plan(params: Params, key: Array, state: State) -> Array:
        def move(latent: tuple[Array, State], action: Array) -> tuple[Array, State]:
            key, noise_key = jax.random.split(latent[0])
            return key, model.imagine(params, noise_key, latent[1], action[None])

        def cost(latent: tuple[Array, State], action: Array, t: Array) -> Array:
            return -model.reward(params, latent[1])[0]

        search_key, model_key = jax.random.split(key)
        one = alone(state)  # [1, ...]
        with jax.numpy_rank_promotion("allow"):
            return search.plan(search_key, move, (model_key, one), cost).actions[0]

    def plan_all(params: Params, key: Array, state: State) -> Array:
        return jax.lax.map(lambda row: plan(params, *row), (jax.random.split(key, rows), state))  # [E, A]

    def args() -> tuple[Any, ...]:
        params = jax.jit(learner.init)(jax.random.key(0)).params
        return params, jax.random.key(1), model.initial(params, rows)

    return compiled(name, plan_all, args, {"decisions": rows}, kind="xwm", envs=rows)


def flashbax_sample(reference: Work, rows: Step, capacity: int, batch: int, time: int) -> Work:
    """A sample of flashbax's trajectory buffer that holds `rows`, Step [T, E], as often as it has room for them."""
    import flashbax

    envs = rows.reward.shape[1]
    buffer = flashbax.make_trajectory_buffer(
        add_batch_size=envs,
        sample_batch_size=batch,
        sample_sequence_length=time,
        period=1,
        min_length_time_axis=time,
        max_length_time_axis=capacity,
    )
    state = buffer.init(jax.tree.map(lambda x: x[0, 0], rows))
    add, sample = jax.jit(buffer.add, donate_argnums=0), jax.jit(buffer.sample)
    with jax.numpy_rank_promotion("allow"):
        for _ in range(-(-capacity // len(rows.reward))):
            state = add(state, jax.tree.map(lambda x: np.swapaxes(x, 0, 1), rows))
        sample = sample.lower(state, jax.random.key(0)).compile()
    megabytes = float(batch * time * rows.obs[0, 0].size / 1e6)
    call = functools.partial(sample, state, jax.random.key(0))
    return Work(f"flashbax, {batch} x {time}", call, {"samples": batch, "MB": megabytes}, reference=reference)


def dm_control_decision(reference: Work, rows: int, repeat: int, size: int) -> Work:
    """Decisions of dm_control's own cheetah_run in `rows` environments, one after the other."""
    call = apart(dm_control_decide, rows, repeat, size)  # beside envpool's rendering it would draw into that's context
    return Work(f"dm_control, {rows} env{'s' if rows > 1 else ''}", call, {"decisions": rows}, reference=reference)


def dm_control_decide(rows: int, repeat: int, size: int) -> Callable[[], None]:
    """A function that takes one decision in every environment and draws it."""
    gl.load_libraries()
    logging.set_verbosity(logging.ERROR)  # of the suite's models, at every load
    from dm_control import suite

    envs = [suite.load("cheetah", "run", task_kwargs=dict(random=seed)) for seed in range(rows)]
    for env in envs:
        env.reset()
    action = np.zeros(envs[0].action_spec().shape)

    def decide() -> None:
        for env in envs:
            for _ in range(repeat):
                env.step(action)
            env.physics.render(size, size, camera_id=0)

    return decide


def ale_py_decision(reference: Work, rows: int, game: str, size: int, actions: np.ndarray) -> Work:
    """A decision of ale-py's own vector environment, single grey frames."""
    import ale_py
    from ale_py.vector_env import AtariVectorEnv

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner for every game
    env = AtariVectorEnv(game.lower(), rows, img_height=size, img_width=size, stack_num=1, reward_clipping=False)
    env.reset(seed=0)
    call = functools.partial(env.step, actions.astype(np.int64))
    return Work(f"ale-py's vector env, {rows} envs", call, reference.amounts, reference=reference)


def gymnasium_decision(reference: Work, rows: int, game: str, size: int, actions: np.ndarray) -> Work:
    """A decision of gymnasium's asynchronous vector environment: every game in a process of its own."""
    from gymnasium.vector import AsyncVectorEnv

    env = AsyncVectorEnv([functools.partial(gymnasium_game, game, size)] * rows, context="spawn")
    env.reset(seed=0)
    call = functools.partial(env.step, actions.astype(np.int64))
    return Work(f"gymnasium async, {rows} envs", call, reference.amounts, reference=reference)


def gymnasium_game(game: str, size: int) -> Any:
    """One game with gymnasium's preprocessing."""
    import ale_py
    import gymnasium

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)
    env = gymnasium.make(f"{game}NoFrameskip-v4")
    return gymnasium.wrappers.AtariPreprocessing(env, screen_size=size)
