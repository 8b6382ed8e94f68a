# /// script
# dependencies = ["arq==0.28.0", "redis[hiredis]==5.3.1", "uvloop==0.22.1"]
# ///
"""arq with 100 jobs at a time and a poll every 10 ms. It keeps no history."""

import sys

import arq_default

if __name__ == "__main__":
    arq_default.OPTIONS.update(max_jobs=100, poll_delay=0.01)
    arq_default.main(*sys.argv[1:])
