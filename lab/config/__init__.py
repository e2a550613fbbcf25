"""Configuration files: every field with its unit, unknown keys refused."""

from endedge.lab.config.experiment import Config
from endedge.lab.config.fields import LATER, named, parse_device
from endedge.lab.config.reading import all_keys, config_of, load_config, loop_of, results_folder
from endedge.lab.config.sections import DataConfig, HeldBack, LinkConfig

__all__ = [
    "LATER",
    "Config",
    "DataConfig",
    "HeldBack",
    "LinkConfig",
    "all_keys",
    "config_of",
    "load_config",
    "loop_of",
    "named",
    "parse_device",
    "results_folder",
]
