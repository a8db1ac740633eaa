"""The one place that imports numpy; import this module late, it takes about 70 ms.

OpenBLAS starts a thread for each CPU when numpy is imported. pyprof does no linear algebra, and a process
with threads must not fork, so it is told to start none.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

__all__ = ["np"]
