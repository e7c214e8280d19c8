"""Which field of the spec a resource of a stage comes from. Pure."""

from __future__ import annotations

from hpcsft.spec import ExperimentSpec


def field_of(spec: ExperimentSpec, stage: str, name: str) -> str:
    """cluster.STAGE.NAME where the stage's own section gives the value, else cluster.NAME, which all stages share.

    Time limits have defaults of their own for each stage, and some fields are those of one stage only.

    >>> from hpcsft.spec import parse_spec
    >>> values = {"model": {"path": "m"}, "data": {"train": ["d"]}, "cluster": {"partition": "gpu"}}
    >>> field_of(parse_spec(values), "train", "partition"), field_of(parse_spec(values), "train", "time")
    ('cluster.partition', 'cluster.train.time')
    """
    own = getattr(getattr(spec.cluster, stage), name, None)
    shared = name in type(spec.cluster).model_fields and (name != "time" or spec.cluster.time is not None)
    return f"cluster.{name}" if own is None and shared else f"cluster.{stage}.{name}"
