"""The runs of the study: which designs and settings each part compares, and where each run is."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.trade_offs import config as configs
from wmjax.run import jobs

SIDES = (56, 48, 32, 16, 8)  # of 64, of the images that are predicted: 77, 56, 25, 6 and 2% of the pixels (Figs. 4, 6)
DIVISORS = (1, 2, 4, 8, 16, 32)  # of SV2P's filters (Table 14)
UNITS, DETERMINISTIC = (2 / 3, 1 / 3, 1 / 6), (1, 1 / 2, 1 / 4)  # of Table 12's layers (Table 15)
MAIN = ("r", "ot_or", "ot_lr", "lt_lr", "lt_or")  # Fig. 1
FAULTS = dict(ot_or_late=("ot_or", "model.actions_late=True"), lt_or_leak=("lt_or", "model.reward_leak=True"))
OTHER_GRADIENT = dict(shared="stopped", stopped="shared")


class Variant(NamedTuple):
    """What one row of a table is trained with."""

    design: str
    settings: tuple[str, ...] = ()  # "model.image_side=16"


class Cell(NamedTuple):
    """A run: a Variant, its task and its seed."""

    name: str
    variant: Variant
    task: str
    seed: int
    folder: pathlib.Path


def variants(preset: str, size: int | None = None) -> dict[str, dict[str, Variant]]:
    """{part: {name: Variant}} of the parts that are trained online; a name means the same run in every part.

    size: of images, of which some variants predict parts; None: the preset's.
    """
    base = configs.get_config(f"cheetah_run,lt_lr,{preset}")
    video = configs.get_config(f"cheetah_run,ot_or,{preset}")
    plain = {design: Variant(design) for design in configs.DESIGNS}
    faulty = {name: Variant(design, (setting,)) for name, (design, setting) in FAULTS.items()}
    sides = [(size or base.env.size) * side // 64 for side in few(SIDES, preset)]
    return dict(
        online={name: plain[name] for name in MAIN},
        faults={own.design: plain[own.design] for own in faulty.values()} | faulty,
        crop=cut(plain, sides, "crop"),
        resize=cut(plain, sides, "resize"),
        scale=scaled_latent(base, preset) | scaled_video(video),
        sharing={name: plain[name] for name in MAIN[1:]} | other_gradients(preset),
        rewards={name: plain[name] for name in ("r", "r_conv", "r_ll")},
    )


def cut(plain: Mapping[str, Variant], sides: Sequence[int], fit: str) -> dict[str, Variant]:
    """lt_lr that predicts the whole image, then smaller and smaller parts of it, then none. sides: in pixels."""
    some = {
        f"lt_lr_{fit}_{side}": Variant("lt_lr", (f"model.image_side={side}", f"model.image_fit={fit}"))
        for side in sides
    }
    return dict(lt_lr=plain["lt_lr"]) | some | dict(r_ll=plain["r_ll"])


def few(sizes: Sequence[Any], preset: str) -> Sequence[Any]:
    """The sizes to compare: all, or the smallest alone with `smoke`, where each further run costs its compilation."""
    return sizes[-1:] if preset == "smoke" else sizes


def scaled_latent(base: Any, preset: str) -> dict[str, Variant]:
    """lt_lr with other numbers of units. base: its config."""
    found = {}
    for units in (round(share * base.model.hidden) for share in few(UNITS, preset)):
        for deterministic in (round(share * base.model.deterministic) for share in few(DETERMINISTIC, preset)):
            settings = (f"hidden={units}", f"reward_units={units}", f"deterministic={deterministic}")
            found[f"lt_lr_{units}_{deterministic}"] = Variant("lt_lr", tuple(f"model.{each}" for each in settings))
    return found


def scaled_video(base: Any) -> dict[str, Variant]:
    """ot_or, then with fewer and fewer filters. base: its config."""
    divisors = [each for each in DIVISORS if each > base.model.filters_divisor]
    fewer = {f"ot_or_filters_{each}": Variant("ot_or", (f"model.filters_divisor={each}",)) for each in divisors}
    return dict(ot_or=Variant("ot_or")) | fewer


def other_gradients(preset: str) -> dict[str, Variant]:
    """The designs with images, with the gradient of the reward shared where it was stopped, and the reverse."""
    found = {}
    for design in MAIN[1:]:
        other = OTHER_GRADIENT[configs.get_config(f"cheetah_run,{design},{preset}").model.reward_gradient]
        found[f"{design}_{other}"] = Variant(design, (f"model.reward_gradient={other}",))
    return found


def make_cells(folder: pathlib.Path, tasks: Sequence[str], seeds: int, variants: Mapping[str, Variant]) -> list[Cell]:
    """A Cell for every task, seed and Variant, by name; seeds in turn, so that each is whole first."""
    return [
        Cell(name, variant, task, seed, folder / task / f"{name}_seed_{seed}")
        for seed in range(seeds)
        for task in tasks
        for name, variant in variants.items()
    ]


def training(cell: Cell, preset: str, settings: Sequence[str]) -> jobs.Job:
    """The Job of PlaNet's main for a Cell. settings: of every run."""
    return training_of("experiments.planet", cell, preset, settings)


def training_of(main: str, cell: Cell, preset: str, settings: Sequence[str]) -> jobs.Job:
    """The Job of a training main for a Cell."""
    config = f"{configs.__file__}:{cell.task},{cell.variant.design},{preset}"
    return jobs.training(main, cell.folder, config, [f"seed={cell.seed}", *cell.variant.settings, *settings])
