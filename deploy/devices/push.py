"""Push the lines of standard input, and wait for each until it is on the listener's disk.

    INGEST_TOKEN=... python3 push.py HOST PORT NAME < lines

The fewest lines that do it properly. The token crosses the network in clear, which a listener takes
from its own host only: from elsewhere wrap the socket with `ssl`, or copy ingest/client.py, which
also does SCRAM and keeps what a broken connection left behind.
"""

import base64
import os
import socket
import sys

if len(sys.argv) != 4 or "INGEST_TOKEN" not in os.environ:
    sys.exit("INGEST_TOKEN=... python3 push.py HOST PORT NAME < lines")
host, port, name = sys.argv[1:]
login = base64.b64encode(f"\0{name}\0{os.environ['INGEST_TOKEN']}".encode()).decode()
with socket.create_connection((host, int(port))) as device, device.makefile("rwb") as stream:
    for message in [f"AUTH PLAIN {login}\n".encode(), *sys.stdin.buffer]:
        line = message.rstrip(b"\r\n")
        stream.write(line + b"\n")
        stream.flush()
        if line:  # an empty line is a keep-alive, and gets no answer
            reply = stream.readline().decode()
            if not reply.startswith(("OK ", "ACK ")):
                sys.exit(reply or "the listener closed the connection")
            print(reply, end="")
