"""A TCP app that greets first, as MySQL and SMTP do, and then sends every line back. Argument: the port."""

from __future__ import annotations

import os
import signal
import socketserver
import sys


class Lines(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(f"hello from {os.environ['HOSTNAME']}\n".encode())
        for line in self.rfile:
            self.wfile.write(line)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # process 1 ignores what it does not handle
Server(("", int(sys.argv[1])), Lines).serve_forever()
