"""``python -m tests.chaos.member app serve``: a process of the service as it is, that also knows the chaos kinds.

The family modules are found by their packages' paths, as the service's own. All that is replaced is what a worker
calls to start another process of its kind: one for suspects must know the chaos kinds too.
"""

import runpy
import sys
from pathlib import Path

import app.jobs
import workers.families

_HERE = Path(__file__).parent

if __name__ == "__main__":
    app.jobs.__path__.append(str(_HERE / "jobs"))
    workers.families.__path__.append(str(_HERE / "families"))
    del sys.argv[0]
    if sys.argv[0] == "workers":
        from workers import __main__ as entry

        entry._COMMAND = (sys.executable, "-m", "tests.chaos.member", "workers")
        entry.run()
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
