"""`--engine`: where the work of a run is done."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

from tagclip.errors import UsageError

ENGINE = ("engine", "address", "actors", "gpus-per-actor")
ENGINE_NOTES = {
    "address": "default: a cluster of this machine alone, for as long as the run lasts",
    "actors": "default: one per GPU, or one per machine without any",
    "gpus-per-actor": "default: 1 where the cluster has GPUs",
}


def chosen_engine(args: argparse.Namespace) -> Callable[..., Any] | None:
    """What does a `MaskRun` in place of its `execute`; None for that.

    Raises:
        UsageError: options of a cluster without one, or beside --shard.
        RequirementError: no Ray.
    """
    given = [f"--{name}" for name in ENGINE[1:] if getattr(args, name.replace("-", "_"), None) is not None]
    if getattr(args, "engine", "local") != "ray":
        if given:
            raise UsageError(f"{', '.join(given)}: of a Ray cluster; add --engine ray")
        return None
    if args.shard is not None:
        raise UsageError("--shard: --engine ray shares the parts out by itself; leave one of the two out")
    from wsss.engines.ray_engine import RayOptions, require_ray, run_on_ray

    require_ray()
    options = RayOptions(args.address, args.actors, args.gpus_per_actor, args.threads)
    return functools.partial(run_on_ray, options=options)
