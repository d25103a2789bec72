"""A training in one of several processes, for `python -m torch.distributed.run`. Arguments: CONFIG RUN VAL WORK_DIR."""

import sys
from pathlib import Path

from wsss.segmentation.train_settings import TrainRequest
from wsss.segmentation.training import train_segmentor

if __name__ == "__main__":
    config, run, val, work_dir = map(Path, sys.argv[1:])
    train_segmentor(TrainRequest(config=config, run=run, val=val, work_dir=work_dir, iterations=4, launcher="pytorch"))
