"""The architecture on one page: the records and function bundles that every room passes around.

Axis legend, used in every docstring:
    S members (agents in one program)   B batch   T time   E environment rows   N candidates   H horizon
    A action   M number of discrete actions   F features   Z latent
    images are [..., X, Y, C] (rows, columns, channels), uint8 until inside jit.

Records are pytrees (`flax.struct.dataclass`). Bundles of pure functions are `NamedTuple`s; their functions
take `(params, key, state, ...)` in that order and can be jitted, vmapped, differentiated and sharded.

    envpool --Step[E]--> run.collect --> replay --Step[B, T]--> Learner.update --> params --> Actor.act --> envpool
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import struct

Array = Any  # a jax.Array inside the core, a numpy array in the shell
Params = Any  # a pytree of arrays
State = Any  # a pytree of arrays; nothing outside a model's own folder reads its fields


class UsageError(ValueError):
    """Bad input from the user: one line that names it and what is allowed. Mains exit with code 2."""


class NonFiniteError(ArithmeticError):
    """Training produced a NaN or an infinity: the message names the update and the tensor. Mains exit with code 3."""


class ActionSpec(NamedTuple):
    """What an environment accepts.

    size: length A of a continuous action, or the number of discrete actions.
    discrete: True for integer actions in [0, size).
    low, high: bounds of every continuous dimension; 0 and size - 1 when discrete.
    """

    size: int
    discrete: bool
    low: float
    high: float


class EnvSpec(NamedTuple):
    """What an environment shows and accepts.

    obs: a jax.ShapeDtypeStruct of one observation: an image (X, Y, C), or a dict of them with the image as "image".
    action: an ActionSpec. action_repeat: environment steps for each decision; time_limit: decisions after which an
    episode is cut, if known.
    """

    obs: Any
    action: ActionSpec
    action_repeat: int = 1
    time_limit: int | None = None

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """(X, Y, C) of the image."""
        return image_of(self.obs).shape

    @property
    def obs_dtype(self) -> Any:
        """The numpy dtype of the image."""
        return image_of(self.obs).dtype


def image_of(obs: Any) -> Any:
    """The image of an observation: the observation itself, unless it is a dict."""
    return obs["image"] if isinstance(obs, dict) else obs


def vector_of(obs: Any) -> Any:
    """The numbers beside the image of an observation, [..., V]; None where it has none."""
    return obs.get("vector") if isinstance(obs, dict) else None


@struct.dataclass
class Step:
    """An arrival record: everything known on arriving at time t, for real and imagined data alike.

    Actors have a leading axis [E]; sequences are [B, T]. Imagined steps carry `obs=None` where nothing was decoded.
    """

    prev_action: Array  # float32 [E, A] or int32 [E]: the action that led here; zeros where is_first
    obs: Any  # uint8 [E, X, Y, C]; or a dict of arrays [E, ...], where more than the image was asked for
    reward: Array  # float32 [E], summed over the action repeat that led here; 0 where is_first
    discount: Array  # float32 [E], 0 only where the episode truly terminated here (a time limit keeps 1)
    is_first: Array  # bool [E], first row of an episode
    is_last: Array  # bool [E], last row of an episode


@struct.dataclass
class Plan:
    """What a planner decided, one row for each environment."""

    action: Array  # float32 [B, A] or int32 [B], the action to take now; a float is NaN where value is
    mean: Array  # float32 [B, H, A], the belief over action sequences; of discrete actions their probabilities
    std: Array  # float32 [B, H, A]
    value: Array  # float32 [B], predicted sum of rewards of the elite sequences


@struct.dataclass
class LearnerState:
    """Everything a learner carries from one update to the next; checkpointed as it is."""

    params: Params
    opt_state: Any
    updates: Array  # int32 []
    acting: Params = None  # the parameters that act, where those are not `params`: see `wmjax.train.with_average`


class WorldModel(NamedTuple):
    """A world model as pure functions. B is any batch of rows; actions are float32 [B, A] (one-hot if discrete)."""

    initial: Callable[..., State]  # (params, B) -> state
    encode: Callable[..., Array]
    # (params, obs [B, ...] as of Step) -> embed [B, ...]; fold time into B before any scan
    observe: Callable[..., tuple[State, Any]]
    # (params, key, state, prev_action, embed, is_first [B]) -> (state, aux): filtering posterior, one step; where
    # is_first, state and prev_action are forgotten; aux: any pytree [B, ...] that the model's own learner needs
    imagine: Callable[..., State]  # (params, key, state, action) -> state: prior, one step
    features: Callable[..., Array]  # (params, state) -> float32 [B, *feature_shape]
    reward: Callable[..., Array]  # (params, state) -> float32 [B], the mean
    discount: Callable[..., Array]  # (params, state) -> float32 [B], probability that the episode goes on
    decode: Callable[..., Array] | None  # (params, state) -> parameters of the image distribution; None: no pixels
    feature_shape: tuple[int, ...]  # (F,), or (X, Y, C) of a grid: what a policy or value network is made for
    rewards: Callable[..., Array] | None = None
    # (params, key, state, actions [H, B, A]) -> float32 [H, B], mean rewards after each action, of a model that
    # predicts a whole sequence at once and whose episodes do not end; None: the reward of each imagined state
    horizon: int | None = None  # H of a model whose `rewards` take sequences of one length alone; None: of any
    with_reward: Callable[..., State] | None = None
    # (state, reward [...]) -> state that holds the reward of its arrival; None: rewards are no input of the model


class JaxEnv(NamedTuple):
    """E environments in pure JAX, stepped together inside jit. The docstring of `wmjax.envs` has the life of a row.

    One key serves all rows; rows whose last Step was `is_last` begin their next episode, whatever their action.
    """

    spec: EnvSpec
    reset: Callable[..., tuple[State, Step]]  # (key, E) -> (state [E, ...], Step [E])
    step: Callable[..., tuple[State, Step]]  # (key, state, action [E, A] or int32 [E]) -> (state, Step [E])


class Planner(NamedTuple):
    """What chooses actions by looking ahead in a model."""

    plan: Callable[..., Plan]  # (params, key, state of B rows) -> Plan


class Actor(NamedTuple):
    """What chooses actions in an environment; its carry is the memory from one decision to the next."""

    initial: Callable[..., Any]  # (params, E) -> carry
    act: Callable[..., tuple[Any, Array, Any]]
    # (params, key, carry, step [E], explore) -> (carry, action [E, A] or int32 [E], extras); explore: bool


class Learner(NamedTuple):
    """What trains parameters, one update at a time."""

    init: Callable[..., LearnerState]  # (key) -> LearnerState
    update: Callable[..., tuple[LearnerState, dict]]
    # (state, key, batch) -> (state, metrics); batch: a Step [B, T], or the learner's own record (a PPO learner's is a
    # Rollout). metrics hold scalars, and grad_finite: {path of a parameter: bool [], whether its gradient is finite}
