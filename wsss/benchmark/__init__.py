"""Speed and memory of both stages beside the straightforward procedure: see `tools/benchmark.py`."""
