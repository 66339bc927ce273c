"""--help of every main and tool, and what the page is made of."""

import ast
import dataclasses
import importlib

import pytest
from ml_collections import ConfigDict, config_dict

from tests import mains
from wmjax.run import help_page

CONFIGURED = ("planet", "smaller_world_models", "environment_models")
TRAINING = [f"{name}.__main__" for name in CONFIGURED]
EXPERIMENTS = mains.ROOT / "experiments"
RUNNABLE = [path for path in sorted(EXPERIMENTS.rglob("*.py")) if "cli.run(main" in path.read_text()]
MAINS = [".".join(path.relative_to(EXPERIMENTS).with_suffix("").parts) for path in RUNNABLE]


def test_all_mains_are_found():
    assert {*TRAINING, "compare", "planet.offline", "record", "benchmark.__main__"} <= {*MAINS}


@pytest.mark.parametrize("module", MAINS)
def test_every_main_and_tool_has_a_page(module):
    ended = mains.call(module, "--help")
    assert ended.code == 0 and ended.stderr == ""
    source = (EXPERIMENTS / module.replace(".", "/")).with_suffix(".py").read_text()
    assert ended.stdout.startswith(ast.get_docstring(ast.parse(source)))
    flags = [line.split("=")[0].strip() for line in ended.stdout.splitlines() if line.startswith("  --")]
    assert len(flags) >= 2 and len(flags) == len(set(flags))
    if module not in TRAINING:  # whose flags are in experiments/training.py, as some of others'; --cores is in runs.py
        source += "".join((EXPERIMENTS / name).read_text() for name in ("runs.py", "training.py"))
        assert all(f'"{flag[2:]}"' in source or flag in ("--config", "--minutes") for flag in flags)
    assert ("  config.seed = 0 (int)\n" in ended.stdout) == ("--config" in flags)


@pytest.mark.parametrize("spelling", ["-h", "-help", "--helpfull", "--help=x", "--helpshort"])
def test_every_spelling_goes_before_all_else(spelling):
    ended = mains.call("compare", "--cuont=4", spelling)
    assert ended.code == 0 and "--group=" in ended.stdout


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_page_has_every_setting_and_a_source(name):
    configs = importlib.import_module(f"experiments.{name}.config")
    page = mains.call(f"{name}.__main__", "--help").stdout
    config = configs.get_config(f"{configs.EXAMPLE},paper")
    for key, value in config.items():
        for path in [f"{key}.{inner}" for inner in value] if isinstance(value, ConfigDict) else [key]:
            assert f"  config.{path} = " in page
    for preset in configs.PRESETS:
        assert f"  {preset}: " in page
    for key, cls in configs.BLOCKS.items():
        assert set(config[key]) == {field.name for field in dataclasses.fields(cls)}


def test_planets_batch_and_its_source():
    page = mains.call("planet.__main__", "--help").stdout
    assert "\n  config.train.batch = 50 (int; cpu: 16)  B\n" in page
    assert "\n  config.model.encoder_widths = (32, 64, 128, 256) (tuple[int, ...]; cpu: (16, 32, 64))  Ha & Sch" in page
    assert "\n  config.env.action_repeat = None (int)  none: the paper's for its tasks\n" in page


@dataclasses.dataclass
class Block:
    """What it is."""

    size: int = 3  # S of "#1"
    names: tuple[str, ...] = (
        "a",  # not of the field
        "b",
    )  # N

    rate: float = 0.5


def paper():
    """The paper's."""
    return ConfigDict(
        dict(
            seed=0,
            env=dict(
                size=64,
                limit=config_dict.placeholder(int),  # none: its own
            ),
            many=1,  # seeds
        )
    )


def test_comments_are_those_of_the_line():
    assert help_page.field_comments(Block) == dict(size='S of "#1"', names="N")
    assert help_page.call_comments(paper) == {"env.limit": "none: its own", "many": "seeds"}
