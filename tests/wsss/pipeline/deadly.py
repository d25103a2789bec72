"""Workers that are killed while they work. Apart from the tests, so that workers need no torch to import it."""

import os
import signal
from pathlib import Path

from wsss.pipeline import mask_workers

DEADLY, ONCE = "TAGCLIP_TEST_DEADLY_ID", "TAGCLIP_TEST_KILLED_ONCE"


def deadly_work(stage, job):
    """What a worker does here, except that one job has it killed, as the kernel does when memory runs out."""
    if job.id == os.environ[DEADLY]:
        mark = Path(os.environ.get(ONCE, "/nowhere/else"))
        if not mark.exists():
            if ONCE in os.environ:
                mark.touch()
            (stage.scratch / f"{mask_workers.NOTE}{os.getpid()}-0").write_text(job.id)
            os.kill(os.getpid(), signal.SIGKILL)
    return mask_workers._work(stage, job)


def die_at_once(stage, job):
    os.kill(os.getpid(), signal.SIGKILL)
