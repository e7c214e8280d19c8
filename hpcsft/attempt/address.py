"""The address of a network interface of this node: where the ranks of a job meet.

python -m hpcsft.attempt.address INTERFACE prints it, or why there is none and ends with 1. Standard library only.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys

SIOCGIFADDR = 0x8915
"""ioctl(2) that asks for the IPv4 address of an interface: netdevice(7)."""


def address_of(interface: str) -> str | None:
    """The IPv4 address of a network interface; None if it has none, or is not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", interface.encode()))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def main(argv: list[str]) -> int:
    """Print the address or what is wrong; returns the exit status."""
    address = address_of(argv[0])
    if address is None:
        others = ", ".join(name for _, name in socket.if_nameindex() if address_of(name)) or "none"
        print(f"cluster.network.interface: {argv[0]} has no IPv4 address here; interfaces that have one: {others}")
        return 1
    print(address)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
