"""One thread per process: with networks this small, threads of torch only wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
