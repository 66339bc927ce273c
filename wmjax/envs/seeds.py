"""Seeds of environment rows: independent between runs, between what they are for, and between rows.

Rows seeded seed, seed + 1, ... would share environments between the pools of neighbouring seeds, so that runs of
seeds 0, 1 and 2 would be no independent sample.
"""

import numpy as np

from wmjax.envs.check import check_int, check_name

PURPOSES = ("train", "evaluation", "test")  # test: of episodes that are played after a run, the same for every run
MOST_ROWS, LARGEST_SEED = 1024, 2**31 - 1


def row_seeds(seed: int, num_envs: int, purpose: str = "train", first_row: int = 0) -> list[int]:
    """Returns the seed of each of `num_envs` rows, in [0, 2**31): a hash of (seed, purpose, row).

    Args:
        seed: of the run, 0 to 2**31 - 1.
        num_envs: rows E, 1 to 1024.
        purpose: one of PURPOSES.
        first_row: the number of the first one.

    Raises:
        UsageError: a value out of range.
    """
    check_int("num_envs", num_envs, low=1, high=MOST_ROWS)
    check_int("seed", seed, low=0, high=LARGEST_SEED)
    check_name("purpose", purpose, PURPOSES)
    entropy = [(int(seed), PURPOSES.index(purpose), row) for row in range(first_row, first_row + num_envs)]
    return [int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1) for parts in entropy]
