"""A pipeline run in a process of its own, for tests that kill it. Arguments: MODEL IMAGES OUT CACHE THREADS."""

import sys
from pathlib import Path

if __name__ == "__main__":  # mask workers import this module again
    import torch

    from tagclip.clip import load_clip
    from tests.wsss.runs import complete

    model, images, out, cache, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    complete(load_clip(model), Path(images), Path(out), cache_dir=Path(cache))
