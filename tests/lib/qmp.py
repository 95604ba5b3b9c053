#!/usr/bin/python3
"""Give commands to a QEMU monitor, one a line, in QMP's JSON or as

    NAME KEY=VALUE ...

which is short for a command whose arguments are plain.  Two more are

    ready JOB       wait until the job is ready to be completed
    concluded JOB   wait until it has ended, without an error, and dismiss it
"""

import json
import socket
import sys
import time


class Monitor:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.execute("qmp_capabilities")

    def execute(self, name, arguments=None):
        command = {"execute": name, "arguments": arguments or {}}
        self.file.write(json.dumps(command) + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                sys.exit("%s: the monitor is gone" % name)
            reply = json.loads(line)
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                sys.exit("%s: %s" % (name, reply["error"]["desc"]))

    def wait(self, job, status):
        for _ in range(1200):
            found = [j for j in self.execute("query-jobs") if j["id"] == job]
            if not found:
                sys.exit("there is no job %s" % job)
            if "error" in found[0]:
                sys.exit("job %s: %s" % (job, found[0]["error"]))
            if found[0]["status"] == status:
                return
            time.sleep(0.05)
        sys.exit("job %s is still %s" % (job, found[0]["status"]))


def value(text):
    if text in ("true", "false"):
        return text == "true"
    return text


monitor = Monitor(sys.argv[1])
for line in sys.stdin:
    words = line.split()
    if not words:
        continue
    print(line.rstrip(), flush=True)
    if line.lstrip().startswith("{"):
        command = json.loads(line)
        monitor.execute(command["execute"], command.get("arguments"))
    elif words[0] == "ready":
        monitor.wait(words[1], "ready")
    elif words[0] == "concluded":
        monitor.wait(words[1], "concluded")
        monitor.execute("job-dismiss", {"id": words[1]})
    else:
        monitor.execute(words[0], {
            k: value(v) for k, v in (w.split("=", 1) for w in words[1:])})
