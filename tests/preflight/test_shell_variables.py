"""Who exported an account for sbatch is told that it does not count here."""

from __future__ import annotations

from hpcsft.preflight.shell_variables import ignored_variables
from tests.preflight.made import planned


def test_what_sbatch_would_have_used_is_told_where_the_spec_says_nothing():
    environ = {"SBATCH_ACCOUNT": "physics", "SBATCH_QOS": "", "HOME": "/"}
    (finding,) = ignored_variables(planned()[0], environ)
    assert (finding.level, finding.where, finding.hint) == ("warning", "cluster.account", "cluster.account=physics")
    assert "SBATCH_ACCOUNT=physics is set here" in finding.message
    assert not list(ignored_variables(planned(cluster={"account": "chemistry"})[0], environ))
    assert not list(ignored_variables(planned(cluster={"train": {"account": "chemistry"}})[0], environ))
