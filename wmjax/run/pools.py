"""Environments of all members of a program: what they are like, and one pool of them all."""

from wmjax import envs
from wmjax.envs.concatenated import JoinedVecEnv
from wmjax.types import UsageError


def spec_of(task, options):
    """The EnvSpec of a task's environments. options: of `wmjax.envs.make`."""
    env = envs.make(task, 1, 0, **options)
    env.close()
    return env.spec


def first_step(members, rows, options):
    """(EnvSpec, Step [E]) of environments made for this alone: what each member's will be like, before all are made.

    Raises: UsageError where two tasks do not fit one program.
    """
    first, *others = [each for each in members if each.seed == members[0].seed]
    env = envs.make(first.task, rows, first.seed, **options)
    step = env.reset()
    env.close()
    for other in others:
        another = envs.make(other.task, rows, other.seed, **options)
        another.close()
        for name, one, two in zip(env.spec._fields, env.spec, another.spec, strict=True):
            if one != two:
                raise UsageError(f"{first.task} and {other.task} do not fit one program: {name} {one} and {two}")
    return env.spec, step


def join_envs(members, rows, options, purpose="train"):
    """One pool for every member, `rows` environments each, as one VecEnv; purpose: as of `wmjax.envs.make`."""
    return JoinedVecEnv([envs.make(each.task, rows, each.seed, purpose=purpose, **options) for each in members])
