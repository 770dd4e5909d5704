"""Runs a program that receives SIGTERM when its parent process ends.

Usage: python recipes/experiments/launcher.py PARENT CORES PROGRAM ARGUMENT...

PARENT is the id of the parent process. CORES are the processor cores to run on,
separated by commas, or nothing for all of them. The signal is sent however the
parent ends, so that the program can save a checkpoint even after `kill -9`.
This is a program because Python code between fork and exec may deadlock in a
process with threads.
"""

import ctypes
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2).


def main(parent, cores, program, *arguments):
    if sys.platform == "linux":
        # exec keeps both settings.
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if cores:
            os.sched_setaffinity(0, map(int, cores.split(",")))
        if os.getppid() != int(parent):
            sys.exit(128 + signal.SIGTERM)  # It ended before the call above.
    os.execv(sys.executable, [sys.executable, program, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
