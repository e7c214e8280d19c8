import pytest

from hpcsft.preflight.finding import Finding
from hpcsft.preflight.summary import summary

ERROR, FORCIBLE = ({"level": "error", "forcible": forcible} for forcible in (False, True))
WARNING, NOTE = {"level": "warning"}, {"level": "note"}


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ([], "nothing stands against a submission"),
        ([NOTE], "nothing stands against a submission"),
        ([WARNING, WARNING], "2 warnings; nothing stands against a submission"),
        ([ERROR, FORCIBLE, WARNING], "2 errors, 1 warning: submit.py refuses this"),
        ([FORCIBLE, NOTE], "1 error: submit.py refuses this; --force submits all the same"),
    ],
)
def test_summary(found, line):
    assert summary([Finding(where="x", message="y", **values) for values in found]) == line
