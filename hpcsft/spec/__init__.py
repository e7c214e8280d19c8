"""The experiment spec: one pydantic model per section; `load.py` reads, merges and explains."""

from hpcsft.spec.experiment import ExperimentSpec
from hpcsft.spec.load import SET_OPTION, load_spec, parse_spec

__all__ = ["SET_OPTION", "ExperimentSpec", "load_spec", "parse_spec"]
