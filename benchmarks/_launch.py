"""Runs one command and writes what it took as JSON: python -S _launch.py REPORT LOG SECONDS COMMAND...

A process of its own with almost no memory, because Linux counts the memory of whoever starts a program into that program's peak.
"""
import json
import os
import signal
import sys


def main() -> None:
    report, log, seconds, *command = sys.argv[1:]
    child = os.fork()
    if child == 0:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvp(command[0], command)
    late = []

    def too_late(*_: object) -> None:
        late.append(True)
        os.killpg(child, signal.SIGKILL)
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(int(seconds))
    _, status, usage = os.wait4(child, 0)
    with open(report, "w") as file:
        json.dump({"code": os.waitstatus_to_exitcode(status), "late": bool(late), "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss * 1024}, file)


main()
