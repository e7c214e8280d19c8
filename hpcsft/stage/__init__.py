"""The frame around a job body."""

from hpcsft.stage.context import StageContext, require
from hpcsft.stage.frame import run_stage

__all__ = ["StageContext", "require", "run_stage"]
