"""Which of the joystick's 18 actions each Atari game uses, as the Arcade Learning Environment lists them.

    0 noop       1 fire        2 up          3 right         4 left           5 down
    6 up right   7 up left     8 down right  9 down left    10 up fire       11 right fire
    12 left fire 13 down fire 14 up right fire 15 up left fire 16 down right fire 17 down left fire

An environment numbers its actions from 0: those that its game uses, in this order; or all that it allows, by
`full_action_set`; or those of its option `actions`, in that option's order.
"""

from collections.abc import Sequence

import numpy as np

ALL = tuple(range(18))
WITHOUT_FIRE = (0, 2, 3, 4, 5, 6, 7, 8, 9)  # the full set of the games that allow no fire
ALLOW_NO_FIRE = ("LostLuggage", "Skiing")
USED = {  # games that are not here use all 18
    (0, 2, 5): "Freeway",
    (0, 3, 4): "Skiing",
    (1, 3, 4): "Backgammon",
    (0, 1, 2, 5): "Blackjack Casino",
    (0, 1, 3, 4): "Breakout Kaboom",
    (0, 1, 11, 12): "Atlantis Atlantis2",
    (0, 1, 3, 4, 5): "Tetris",
    (0, 2, 3, 4, 5): "Frogger Pacman Surround",
    (1, 6, 7, 8, 9): "VideoCheckers",
    (0, 1, 2, 3, 4, 5): "BasicMath KingKong Qbert",
    (0, 1, 2, 5, 10, 13): "Bowling Pooyan UpNDown",
    (0, 1, 3, 4, 11, 12): "AirRaid Carnival DemonAttack Galaxian NameThisGame Pong SirLancelot SpaceInvaders",
    (0, 1, 2, 3, 4, 11, 12): "Assault",
    (0, 1, 2, 3, 4, 10, 11, 12): "Gopher",
    (0, 1, 3, 4, 5, 11, 12, 13): "Phoenix",
    (0, 2, 3, 4, 5, 10, 11, 12): "Tutankham",
    (0, 1, 2, 3, 4, 5, 10, 11, 12): "VideoPinball",
    (0, 1, 2, 3, 4, 6, 7, 11, 12): "BeamRider",
    (0, 1, 3, 4, 5, 8, 9, 11, 12): "Enduro",
    (0, 2, 3, 4, 5, 6, 7, 8, 9): "Asterix CrazyClimber Koolaid LostLuggage MsPacman",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9): "Othello TicTacToe3d VideoChess",
    (0, 1, 2, 3, 4, 5, 10, 11, 12, 13): "Amidar MrDo TimePilot WizardOfWor",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12): "Turmoil",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13): "KeystoneKapers",
    (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15): "Asteroids",
    (0, 2, 3, 4, 5, 8, 9, 11, 12, 13, 14, 15, 16, 17): "KungFuMaster",
    (0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17): "JourneyEscape",
}


def full_set(game: str) -> tuple[int, ...]:
    """What a game allows, in the joystick's numbers. game: its gym name without a version, such as "MsPacman"."""
    return WITHOUT_FIRE if game in ALLOW_NO_FIRE else ALL


def own_set(game: str) -> tuple[int, ...]:
    """What a game uses, in the joystick's numbers. game: as in `full_set`."""
    return next((actions for actions, games in USED.items() if game in games.split()), ALL)


def played_set(game: str, actions: Sequence[int] | None, full_action_set: bool) -> tuple[int, ...]:
    """The joystick's number of each action of an environment made with these options. game: as in `full_set`."""
    return tuple(actions or (full_set(game) if full_action_set else own_set(game)))


def places(actions: Sequence[int], among: Sequence[int]) -> np.ndarray:
    """Where each action is among others, int32 [actions]; raises ValueError where one is not among them."""
    return np.array([among.index(action) for action in actions], np.int32)
