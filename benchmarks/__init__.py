"""Side-by-side measurements against named peers, run as ``python -m benchmarks.<name>`` from the root of the clone."""
