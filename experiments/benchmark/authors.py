"""The code of Smaller World Models' authors beside ours, where SMALLER_WORLD_MODELS names a clone of it.

    git clone https://github.com/jrobine/smaller-world-models ../authors
    .venv/bin/uv pip install torch && .venv/bin/uv pip install --no-deps gym==0.17.3
    SMALLER_WORLD_MODELS=../authors .venv/bin/python -m experiments.benchmark --only=dream

Its classes are built as its `train.py` builds them, with one frame and as many actions as ours; batches are noise.
"""

import functools
import importlib
import importlib.util
import os
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

from experiments.benchmark import rivals
from wmjax import console
from wmjax.report.benchmark import Work

VARIABLE, SIDE = "SMALLER_WORLD_MODELS", 96  # the side of images is fixed in that code
MODELS = "experiments/smaller_world_models/models.py"
RECORDED = 400  # frames that imagined episodes begin from


@functools.cache
def clone() -> pathlib.Path | None:
    """The folder that VARIABLE names; None where it names none of that code, which is said."""
    folder = pathlib.Path(os.environ.get(VARIABLE, ""))
    if os.environ.get(VARIABLE) and (folder / MODELS).is_file():
        return folder.absolute()
    what = f"{folder} is no clone of" if os.environ.get(VARIABLE) else "is not set: name a clone of"
    console.say(f"{VARIABLE} {what} github.com/jrobine/smaller-world-models: to see it here")
    return None


def beside(ours: Work, make: Callable, *sizes: int) -> Work:
    """The same work as `ours` by the authors. make: of this module, called with the clone and sizes."""
    return Work(f"the authors', {ours.name}", rivals.apart(make, clone(), *sizes), ours.amounts, reference=ours)


def autoencoder(folder: pathlib.Path, actions: int, images: int) -> Callable[[], None]:
    """A function that updates the VQ-VAE on `images` images."""
    import torch

    model = parts(folder, actions)["model"].train()
    adam = torch.optim.Adam(model.state_repr.parameters(), 1e-4)
    batch = noise(images)
    return lambda: step(adam, model.compute_state_representation_loss(batch)[0])


def dynamics(folder: pathlib.Path, actions: int, rows: int, time: int) -> Callable[[], None]:
    """A function that updates the ConvLSTMs and their heads on `rows` sequences of `time` frames."""
    import torch

    model = parts(folder, actions)["model"].train()
    head = list(model.dynamics.reward_head.parameters())
    rest = [each for name, each in model.dynamics.named_parameters() if not name.startswith("reward_head")]
    adam = torch.optim.Adam([dict(params=rest, lr=5e-4), dict(params=head, lr=1e-3)])
    lead = (time, rows)
    batch = (noise(*lead), torch.randint(actions, lead), torch.randint(-1, 2, lead).float(), torch.zeros(lead).bool())
    return lambda: step(adam, model.compute_dynamics_loss(*batch, context_size=4, reward_loss_weight=1e-6)[0])


def imagination(folder: pathlib.Path, actions: int, episodes: int, horizon: int) -> Callable[[], None]:
    """A function that imagines `episodes` episodes of `horizon` steps, and encodes what the next ones begin from."""
    made = parts(folder, actions)
    sampler = sampler_of(made, episodes, horizon)
    return lambda: sampler.sample(horizon, made["ppo"].PPOSample, train=True)


def ppo_round(folder: pathlib.Path, actions: int, episodes: int, horizon: int) -> Callable[[], None]:
    """A function that makes all epochs of PPO on the same imagined episodes."""
    import torch

    made = parts(folder, actions)
    network, ppo = made["network"], made["ppo"]
    batch = sampler_of(made, episodes, horizon).sample(horizon, ppo.PPOSample, train=True)
    adam = torch.optim.Adam(network.parameters(), 2.5e-4)

    def optimize(loss: Any) -> None:
        step(adam, loss, lambda: torch.nn.utils.clip_grad_norm_(network.parameters(), max_norm=0.5))

    weights = dict(value_loss_clip=0.1, value_loss_coef=0.5, entropy_coef=0.01, normalize_advantage=True)
    rounds = dict(num_steps=horizon, num_epochs=4, minibatch_size=256, discount_rate=0.99, gae_lambda=0.95, clip=0.1)
    trained = ppo.ProximalPolicyOptimization(network, optimize, lambda *args: None, **rounds, **weights)
    return functools.partial(trained.update, types.SimpleNamespace(sample=lambda *args, **kwargs: batch))


def step(adam: Any, loss: Any, clip: Callable[[], Any] = lambda: None) -> None:
    """A step of torch's Adam down a loss. clip: of the gradients, before it."""
    adam.zero_grad()
    loss.backward()
    clip()
    adam.step()


def parts(folder: pathlib.Path, actions: int) -> dict[str, Any]:
    """The world model and the policy's network, as that code's train.py makes them, and its module of PPO.

    For a process of its own: the clone comes first on its path.
    """
    import torch

    torch.manual_seed(0)
    sys.path.insert(0, str(folder))
    ppo, utils = importlib.import_module("rl.algorithms.ppo"), importlib.import_module("rl.utils")
    spec = importlib.util.spec_from_file_location("authors_models", folder / MODELS)
    assert spec and spec.loader
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    buffer = utils.TrajectoryBuffer(["observation"])
    buffer.add_trajectory(utils.Obs(noise(RECORDED, 1)))
    model = models.AtariDiscreteLatentSpaceWorldModel(1, 128, actions, torch.device("cpu"), buffer)
    network = models.AtariLatentSpaceActorCriticNetwork(32, actions, False, torch.device("cpu"))
    return dict(model=model, network=network, ppo=ppo)


def sampler_of(made: dict[str, Any], episodes: int, horizon: int) -> Any:
    """Acts in the world model, after its first reset. made: as of `parts`."""
    names = ("rl.agents", "rl.modelbased", "rl.utils")
    agents, modelbased, utils = (importlib.import_module(name) for name in names)
    env = modelbased.SimulatedEnv(made["model"], episodes, horizon)
    sampler = utils.EnvSampler(env, agents.ActorCriticAgent(made["network"]))
    sampler.reset()
    return sampler


def noise(*lead: int) -> Any:
    """A tensor of grey images of noise, uint8 [*lead, 1, SIDE, SIDE]."""
    import torch

    return torch.randint(256, (*lead, 1, SIDE, SIDE), dtype=torch.uint8)
