"""Engines that share a run between machines; each does the parts of `wsss.pipeline.work_parts`."""
