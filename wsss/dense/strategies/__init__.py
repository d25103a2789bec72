"""One file per training-free strategy; the file name is the strategy's name. See docs/dense.md."""
