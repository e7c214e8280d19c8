"""Run a command on a machine without a network: python walled.py FILE COMMAND...

To be started in a network namespace of its own (`unshare -n`), where there is only a loopback device, which is switched
on here because ranks talk over it. What reaches for the internet through a proxy, as all clients for HTTP do that heed
HTTPS_PROXY, is written to FILE, one line per request, and refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main(record: Path, command: list[str]) -> int:
    """Run `command` and return its exit code."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    class Proxy(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            with record.open("a") as file:
                file.write(f"{self.command} {self.path}\n")
            self.send_error(502)

        do_CONNECT = do_GET = do_POST = do_HEAD = _refuse

        def log_message(self, *arguments: object) -> None:
            pass

    record.touch()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{proxy.server_address[1]}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    return subprocess.run(command, env={**os.environ, **dict.fromkeys(names, address)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
