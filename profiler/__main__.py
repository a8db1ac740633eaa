"""`python -P -m pyprof.profiler`: the command line without its script."""

import os
import sys

if os.geteuid() == 0 and not getattr(sys.flags, "safe_path", sys.flags.isolated):
    # python -m puts the current folder first on the module path: as root that runs anybody's code
    sys.exit("pyprof: as root run `pyprof`, or `python -P -m pyprof.profiler`, not `python -m`")

from pyprof.profiler.launch import main

main()
