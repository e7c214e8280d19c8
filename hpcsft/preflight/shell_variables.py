"""Variables by which people tell sbatch what to do: jobs here are told by their spec alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpcsft.preflight.finding import Finding
from hpcsft.spec import ExperimentSpec

VARIABLES = {"SBATCH_ACCOUNT": "account", "SBATCH_PARTITION": "partition", "SBATCH_QOS": "qos"}
"""Many sites tell people to export these."""


def ignored_variables(spec: ExperimentSpec, environ: Mapping[str, str]) -> Iterator[Finding]:
    """A warning for each that is set and whose field is given nowhere."""
    sections = (spec.cluster, *(getattr(spec.cluster, name) for name in ("preprocess", "train", "generate", "judge")))
    for variable, field in VARIABLES.items():
        value = environ.get(variable)
        if value and not any(getattr(section, field) for section in sections):
            message = f"{variable}={value} is set here, and hpcsft does not use it: the spec alone says where jobs run"
            yield Finding(level="warning", where=f"cluster.{field}", message=message, hint=f"cluster.{field}={value}")
