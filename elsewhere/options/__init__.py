"""Options that several commands share: one spelling, one help text, one default of each."""

from elsewhere.options.groups import OptionGroup, choose, option_names, part, spread_devices, takes
from elsewhere.options.network import ModelOptions
from elsewhere.options.single import (
    MODEL,
    SOURCE,
    DtypeOption,
    JsonOption,
    LayerOption,
    LayersOption,
    MetricOption,
    NamesOption,
    OverwriteOption,
    PartialOption,
    PhaseOption,
    TokensOption,
)
from elsewhere.options.stimuli import StimulusOptions, named_set, with_font
from elsewhere.options.work import ENGINES, CostOptions, KeepOptions

__all__ = [
    "ENGINES",
    "MODEL",
    "SOURCE",
    "CostOptions",
    "DtypeOption",
    "JsonOption",
    "KeepOptions",
    "LayerOption",
    "LayersOption",
    "MetricOption",
    "ModelOptions",
    "NamesOption",
    "OptionGroup",
    "OverwriteOption",
    "PartialOption",
    "PhaseOption",
    "StimulusOptions",
    "TokensOption",
    "choose",
    "named_set",
    "option_names",
    "part",
    "spread_devices",
    "takes",
    "with_font",
]
