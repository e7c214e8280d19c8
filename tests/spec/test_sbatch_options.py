"""Guards the door that cluster.sbatch is: what users need passes, what would run or undo something does not."""

from __future__ import annotations

import pytest

from hpcsft.errors import SpecError
from hpcsft.spec import parse_spec
from hpcsft.spec.sbatch_options import SBATCH_DERIVED, SBATCH_OWNED, SBATCH_REFUSED, why_not
from tests.spec.values import minimal

NEEDED = {
    "exclude": "n[1-3,7]",
    "nodelist": "n4",
    "exclusive": True,
    "reservation": "maint_1",
    "licenses": "matlab:1,fluent@server:2",
    "gres": "gpu:a100:4,lustre:1",
    "gres-flags": "enforce-binding",
    "mail-user": "me+jobs@example.org",
    "mail-type": "END,FAIL",
    "switches": "1@10:00",
    "tmp": "100G",
    "mem-per-cpu": "4G",
    "hint": "nomultithread",
    "begin": "2030-01-01T08:00",
    "nice": -10,
    "hold": True,
    "time-min": "01:00:00",
    "threads-per-core": 1,
    "gpu-bind": "closest",
    "gpu-freq": "medium,memory=high",
    "distribution": "block:cyclic",
    "wckey": "project",
    "network": "sn_all",
    "wait-all-nodes": 1,
    "prefer": "rack1|rack2",
}


def test_what_users_need_passes():
    parse_spec(minimal(cluster={"sbatch": NEEDED}))


@pytest.mark.parametrize("option", SBATCH_REFUSED)
def test_what_is_refused_says_why(option):
    with pytest.raises(SpecError, match="1 problem") as caught:
        parse_spec(minimal(cluster={"sbatch": {option: "1"}}))
    assert caught.value.lines()[0].startswith(
        f"error: cluster.sbatch: --{option} is not taken: {SBATCH_REFUSED[option]}"
    )


def test_options_of_pyxis_for_the_batch_script_point_to_the_container():
    assert "use cluster.container" in (why_not("container-image") or "")


@pytest.mark.parametrize("name", [*SBATCH_OWNED, *SBATCH_DERIVED, *SBATCH_REFUSED])
def test_a_name_that_is_cut_off_is_no_way_around(name):
    """sbatch takes --wra for --wrap."""
    assert all(why_not(name[:length]) for length in range(1, len(name) + 1))
