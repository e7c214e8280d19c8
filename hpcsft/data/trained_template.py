"""The template that a run's rows were made with, for all who come after them."""

from __future__ import annotations

from typing import Any

from hpcsft.data.shards import Manifest
from hpcsft.data.templates import Template, make_template
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec


def trained_template(run: RunDir, spec: ExperimentSpec, tokenizer: Any) -> Template:
    """The template that training rows were made with, as its text was then. The rows need not be there any more."""
    source = Manifest.model_validate(read_json(run.manifest)).template if run.manifest.exists() else None
    return make_template(spec.data.template, tokenizer, source)
