"""Becomes a program that gets SIGTERM when the one that started it ends.

Usage: python recipes/experiments/launcher.py PARENT CORES PROGRAM ARGUMENT...

PARENT is the process that started this one, CORES are the processor cores to
run on, separated by commas; none for all. However the parent ends, even killed,
the program is told, and can save. That it is a program rather than a few lines
between fork and exec is because these may hang in a process with threads.
"""

import ctypes
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2).


def main(parent, cores, program, *arguments):
    if sys.platform == "linux":
        # Both stay what they are in the program.
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if cores:
            os.sched_setaffinity(0, map(int, cores.split(",")))
        if os.getppid() != int(parent):
            sys.exit(128 + signal.SIGTERM)  # It ended before the call above.
    os.execv(sys.executable, [sys.executable, program, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
