"""Quotas, as their tools' manuals show them."""

from __future__ import annotations

import pytest

from hpcsft.preflight.storage.filesystems import Mount
from hpcsft.preflight.storage.quota import Quota, is_of, parse_quotas, quotas_on, tightest_bytes

USER = """\
Disk quotas for user ada (uid 1001):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
nas:/vol/home  2345678  5000000 6000000            12345  100000  110000
/dev/sda1  10400*  10000  20000   6days    1101*   1000    2000    none
/dev/sdb1  77  0  0      5  0  0
"""
LUSTRE = """\
Disk quotas for usr ada (uid 1001):
     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
/very/long/name/of/a/lustre/filesystem
                 30720*   30920   30720 6d23h56m44s   10101*   10240   10000 6d23h59m50s
Files for user (ada):
"""
GUESSED = "    /mnt/lustre [67724]  70000  80000  -   17  0  0  -\n"


def test_quota_of_linux():
    home, over, free = parse_quotas(USER)
    assert home == Quota(
        filesystem="nas:/vol/home",
        used_bytes=2345678 * 1024,
        limit_bytes=6000000 * 1024,
        used_files=12345,
        limit_files=110000,
    )
    assert over.left_bytes == 9600 * 1024 and over.left_files == 899
    assert free.left_bytes is None and free.left_files is None


def test_quota_of_lustre():
    (found,) = parse_quotas(LUSTRE)
    assert found.filesystem == "/very/long/name/of/a/lustre/filesystem"
    assert (found.left_bytes, found.left_files) == (0, 0)
    (guessed,) = parse_quotas(GUESSED)
    assert guessed.left_bytes == (80000 - 67724) * 1024 and guessed.left_files is None


@pytest.mark.parametrize(
    "text", ["", "Disk quotas for user root (uid 0): none\n", "quota: error while getting quota\n", "a b\nc 1 2\n"]
)
def test_what_is_of_another_form_is_passed_over(text):
    assert parse_quotas(text) == []


def test_only_the_filesystem_in_question_counts():
    quotas = parse_quotas(USER)
    mount = Mount("nas:/vol/home", "/home", "nfs4")
    assert [is_of(quota, mount) for quota in quotas] == [True, False, False]
    assert tightest_bytes([quota for quota in quotas if is_of(quota, mount)]) == (6000000 - 2345678) * 1024
    assert tightest_bytes([]) is None


def test_a_tool_that_answers_is_asked_and_a_slow_one_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tool = tmp_path / "lfs"
    tool.write_text(f"#!/bin/sh\necho '{GUESSED}'\nexit 1\n")
    tool.chmod(0o755)
    (found,) = quotas_on(Mount("x", "/mnt/lustre", "lustre"))
    assert found.left_bytes == (80000 - 67724) * 1024
    assert quotas_on(Mount("x", "/elsewhere", "lustre")) == []
    monkeypatch.setattr("hpcsft.preflight.storage.quota.TIMEOUT_S", 0.1)
    tool.write_text("#!/bin/sh\nexec sleep 5\n")
    assert quotas_on(Mount("x", "/mnt/lustre", "lustre")) == []
