"""Files that compute nodes cannot see: found by the filesystem they are on, named with all their fields at once."""

from __future__ import annotations

import pytest

from hpcsft.preflight.storage.filesystems import locality, mount_of, parse_mounts, read_mounts, sharing_findings

MOUNTS = parse_mounts(
    "proc /proc proc rw,relatime 0 0\n"
    "/dev/vda1 / ext4 rw,relatime 0 0\n"
    "tmpfs /dev/shm tmpfs rw 0 0\n"
    "nas:/vol/home /home nfs4 rw,vers=4.2 0 0\n"
    "nas:/vol/soft /opt/soft nfs ro,relatime 0 0\n"
    "10.0.0.1@o2ib:/scratch /scratch lustre rw,flock 0 0\n"
    "/dev/md0 /scratch/local\\040disk xfs rw 0 0\n"
    "torn\n"
)


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/home/ada/runs", "shared"),
        ("/homes/ada", "disk"),
        ("/scratch/runs", "shared"),
        ("/scratch/local disk/runs", "disk"),
        ("/data", "disk"),
        ("/tmp", "own"),
        ("/tmp/runs", "own"),
        ("/tmpfoo", "disk"),
        ("/dev/shm/x", "own"),
    ],
)
def test_where_a_path_is(path, where):
    assert locality(path, MOUNTS) == where


def test_a_network_mounted_on_tmp_is_shared():
    assert locality("/tmp/runs", [*MOUNTS, *parse_mounts("nas:/tmp /tmp nfs4 rw 0 0\n")]) == "shared"
    assert locality("/x", []) == "shared"  # nobody tells


def test_the_last_of_equal_mounts_counts_and_read_only_is_known():
    over = [*MOUNTS, *parse_mounts("overlay / overlay rw 0 0\n")]
    mount = mount_of("/data", over)
    assert mount and mount.kind == "overlay"
    soft = mount_of("/opt/soft/python", MOUNTS)
    assert soft and soft.read_only


def test_one_finding_for_each_filesystem_with_all_fields():
    paths = {"runs_dir": ["/tmp/no/runs"], "data.train": ["/tmp/no/d.jsonl"], "model.path": ["/home/ada/m"]}
    (error,) = sharing_findings(paths, MOUNTS)
    assert (error.level, error.where, error.forcible) == ("error", "runs_dir, data.train", True)
    assert error.message.startswith("/tmp/no/runs and others: on this machine alone (ext4 at /)")
    (warning,) = sharing_findings({"python": ["/srv/venv"]}, MOUNTS)
    assert (warning.level, warning.where) == ("warning", "python") and "on a disk of this machine" in warning.message


def test_this_machine_tells_its_mounts():
    assert mount_of("/", read_mounts())


def test_the_python_of_the_operating_system_is_on_every_node():
    diskless = parse_mounts("tmpfs / tmpfs rw 0 0\n")
    assert list(sharing_findings({"python": ["/usr"]}, diskless)) == []
    assert list(sharing_findings({"python": ["/usr"]}, MOUNTS)) == []
