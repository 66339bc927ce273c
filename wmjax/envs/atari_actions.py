"""Which of the joystick's 18 actions each Atari game uses, as the Arcade Learning Environment lists them.

    0 noop       1 fire        2 up          3 right         4 left           5 down
    6 up right   7 up left     8 down right  9 down left    10 up fire       11 right fire
    12 left fire 13 down fire 14 up right fire 15 up left fire 16 down right fire 17 down left fire

An environment made without `full_action_set` numbers the actions of its game from 0, in this order.
"""

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


def in_full_set(game: str) -> np.ndarray:
    """The number that each action of a game's own set has in its full set, int32 [actions].

    Args:
        game: its gym name without a version, such as "MsPacman".
    """
    used = next((actions for actions, games in USED.items() if game in games.split()), ALL)
    full = WITHOUT_FIRE if game in ALLOW_NO_FIRE else ALL
    return np.array([full.index(action) for action in used], np.int32)
