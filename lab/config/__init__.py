"""Configuration files: every field with its unit, unknown keys refused."""

from endedge.lab.config.experiment import DEVICES, Config
from endedge.lab.config.fields import LATER, named
from endedge.lab.config.reading import all_keys, config_of, load_config, loop_of, results_folder
from endedge.lab.config.sections import Data, HeldBack, Link

__all__ = [
    "DEVICES",
    "LATER",
    "Config",
    "Data",
    "HeldBack",
    "Link",
    "all_keys",
    "config_of",
    "load_config",
    "loop_of",
    "named",
    "results_folder",
]
