"""Reloads the newest checkpoint of a PlaNet run, plays episodes without exploration noise, reports returns and a video.

python -m experiments.planet.evaluate --workdir=runs/a --episodes=10
"""

import json
import pathlib
import sys

import jax
from absl import flags

from experiments.planet import parts
from wmjax import console, envs
from wmjax.report.page import write_whole
from wmjax.run import cli, lifecycle
from wmjax.run.collect import make_player
from wmjax.run.members import member_keys, pick
from wmjax.storage import checkpoint, workdir
from wmjax.types import UsageError

WORKDIR = cli.path_flag("workdir", "folder of the run")
EPISODES = flags.DEFINE_integer("episodes", 10, "episodes, played at once", lower_bound=1, upper_bound=1024)
MEMBER = flags.DEFINE_integer("member", 0, "which agent of a population, counted from 0", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "seed of the episodes and of the planner", lower_bound=0, upper_bound=10**9)


def main(argv):
    """Evaluates once. argv: the command line."""
    cli.parse_flags(argv, __name__)
    if WORKDIR.value is None:
        raise UsageError("give --workdir=DIR, the folder of a run")
    cli.use_jax()
    folder = pathlib.Path(WORKDIR.value)
    chosen = parts.settings(workdir.read_config(folder))
    task = pick(chosen.members, MEMBER.value).task
    env = envs.make(task, EPISODES.value, SEED.value, purpose="test", **chosen.env)
    agent = parts.make_agent(chosen, env.spec)
    predict = parts.make_predict(agent, env.spec)

    learner = jax.eval_shape(jax.vmap(agent.learner.init), member_keys(chosen.members, 4)[0])
    rest = dict.fromkeys(("counters", "env", "eval_env"), checkpoint.AS_SAVED)
    template = dict(learner=learner, acting=learner.params, **rest)
    episode, state = lifecycle.restore_member(folder, template, MEMBER.value)
    updates = int(state["learner"].updates[0])

    player = make_player(agent.actor, EPISODES.value, explore=False)
    name = f"evaluate_{episode:06d}"
    keys = jax.random.key(SEED.value)[None]
    row = parts.evaluate([folder], name, env, player, predict, state["acting"], keys)[0]
    for i in range(EPISODES.value):
        console.say(f"episode {i}: return {row[f'eval/return_{i}']:.1f}")
    console.say(f"mean {row['eval/return_mean']:.1f}, standard deviation {row['eval/return_std']:.1f}")
    video = folder / "videos" / f"{name}.mp4"
    shown = video if video.exists() else "could not be written"
    console.say(f"checkpoint after episode {episode}, {updates} updates; video: {shown}")
    result = dict(checkpoint_episodes=episode, updates=updates, seed=SEED.value, task=task) | row
    write_whole(folder / "evaluate.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv))
