"""What `wmjax.doctor` calls for the study's configs:

    python -m wmjax.doctor --config=experiments/trade_offs/config.py:cheetah_run,lt_or,cpu

It is PlaNet's doctor, since PlaNet's main trains the designs.
"""

from experiments.planet.doctor import main

__all__ = ["main"]
