"""What sbatch's words mean: refused, nobody there, or nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsft.cluster.slurm import refusal
from hpcsft.errors import ClusterError, SubmissionError, UnclearError
from hpcsft.plan import make_plan
from hpcsft.spec import parse_spec
from tests.conftest import make_spec_values

FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"{FAILED}Invalid account or account/partition combination specified", SubmissionError),
        ("sbatch: error: Invalid --mem specification", SubmissionError),
        (f"{FAILED}Unable to contact slurm controller (connect failure)", ClusterError),
        ("sbatch: fatal: Could not establish a configuration source", ClusterError),
        (f"{FAILED}Unable to contact slurm controller (receive failure)", UnclearError),
        (f"{FAILED}Socket timed out on send/recv operation", UnclearError),
        (f"{FAILED}Zero Bytes were transmitted or received", UnclearError),
        (f"{FAILED}Transport endpoint is not connected", UnclearError),
        ("", UnclearError),
        ("Killed", UnclearError),
    ],
)
def test_only_what_slurm_itself_has_said_is_a_refusal(text, kind):
    values = make_spec_values(Path("/models/tiny"), Path("/data/a.jsonl"), Path("/data/p.json"), Path("/runs"))
    error = refusal(make_plan(parse_spec(values)).stage("train"), text)
    assert type(error) is kind
    assert error.message
