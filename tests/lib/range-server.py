#!/usr/bin/python3
"""A small web server that knows ranges, for the curl plugin.

  range-server.py DIRECTORY PORTFILE

The port is written to PORTFILE when the server is ready.
"""

import http.server
import os
import re
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(True)

    def do_HEAD(self):
        self.answer(False)

    def answer(self, body):
        try:
            f = open(os.path.basename(self.path), "rb")
        except OSError:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with f:
            size = os.fstat(f.fileno()).st_size
            first, last, code = 0, size - 1, 200
            m = re.fullmatch(r"bytes=(\d+)-(\d*)",
                             self.headers.get("Range", ""))
            if m:
                first, code = int(m[1]), 206
                last = min(int(m[2] or last), last)
            self.send_response(code)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last - first + 1))
            if code == 206:
                self.send_header("Content-Range",
                                 "bytes %d-%d/%d" % (first, last, size))
            self.end_headers()
            if body:
                f.seek(first)
                self.wfile.write(f.read(last - first + 1))

    def log_message(self, *args):
        pass


def main():
    os.chdir(sys.argv[1])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with open(sys.argv[2] + ".part", "w") as f:
        f.write("%d\n" % server.server_port)
    os.rename(sys.argv[2] + ".part", sys.argv[2])
    server.serve_forever()


if __name__ == "__main__":
    main()
