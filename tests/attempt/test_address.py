"""Where the ranks of a job meet if the spec names an interface."""

from __future__ import annotations

from hpcsft.attempt.address import address_of, main


def test_the_address_is_that_of_the_interface(capsys):
    assert address_of("lo") == "127.0.0.1"
    assert main(["lo"]) == 0 and capsys.readouterr().out == "127.0.0.1\n"


def test_an_interface_that_is_not_there_is_told_with_those_that_are(capsys):
    assert main(["ib9"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("cluster.network.interface: ib9 has no IPv4 address here; interfaces that have one: lo")
