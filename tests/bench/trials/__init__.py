"""What is measured of this service: one trial a file, each run in a process of its own by ``tests.bench.stage``."""
