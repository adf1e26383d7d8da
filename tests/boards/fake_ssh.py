"""Stand in for ssh: forward the port of ``-L`` within this machine, and run the command here.

Run as ``fake_ssh.py PIDS OPTIONS... USER@HOST COMMAND``; process ids are appended to the file PIDS.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from autocompress.boards.address import Place
from tests.boards.relay import relay


def main() -> None:
    pids, *options, destination, command = sys.argv[1:]
    if destination.startswith("nobody@"):
        sys.exit("Warning: something\nPermission denied (publickey).")
    _, port, to, to_port = options[options.index("-L") + 1].split(":")
    with relay(Place(to, int(to_port)), port=int(port)), subprocess.Popen(["sh", "-c", f"exec {command}"]) as agent:
        with Path(pids).open("a") as file:
            file.write(f"{os.getpid()}\n{agent.pid}\n")
        code = agent.wait()
    sys.exit(code)


if __name__ == "__main__":
    main()
