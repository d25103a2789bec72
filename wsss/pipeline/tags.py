"""Stage one over a whole collection: plan -> decode threads -> model -> tags.jsonl, killed and continued at will."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tagclip.batches import plan_batches
from tagclip.config import TagCLIPConfig
from tagclip.tag_files import KeptScores, tag_line, write_plain
from tagclip.vocabulary import Vocabulary
from wsss.files.run_folder import RunFolder
from wsss.pipeline.planning import Plan, PlannedImage, confirm_photos, decodes

if TYPE_CHECKING:
    from torch import Tensor

    from tagclip.tagger import ImageTagger, TagResult
    from wsss.pipeline.batch import BatchRunner
    from wsss.pipeline.decoding import DecodedBatch

PLAIN_LIST = "tags.txt"


def run_tagging(
    run: RunFolder,
    tagger: ImageTagger | Callable[[], ImageTagger],
    plan: Plan,
    *,
    settings: TagCLIPConfig | None = None,
    vocabulary: Vocabulary | None = None,
    workers: int = 2,
    kept: KeptScores | None = None,
    progress: Callable[[int], object] = lambda images: None,
) -> dict[str, Any]:
    """Tag what a run folder still lacks of a plan, and put the folder into its final order.

    Batches are those of the whole plan, whatever was done before, so that a run killed at any moment and continued
    ends with the same bytes as one that was not. In a run that was complete before, images that were added make batches
    of their own.

    Args:
        run: open run folder; its identity must cover the tagger's settings and weights.
        tagger: or a function that makes it, called when there is something left to tag.
        plan: of all images.
        settings, vocabulary: the tagger's; None: looked up in it.
        workers: decoding threads.
        kept: which scores of an image are stored; None for all.
        progress: called with the number of images that were finished since its last call.

    Returns:
        Counts for the manifest: {"images", "tagged", "failures", "tags": {name: images}}.

    Raises:
        RunError: a full disk, a model whose scores are never finite, or other photos than the run began with; the run
            can be resumed.
    """
    settings = settings or getattr(tagger, "config", None)
    vocabulary = vocabulary or getattr(tagger, "vocabulary", None)
    if settings is None or vocabulary is None:
        raise ValueError("without a tagger, settings and vocabulary are needed")
    confirm_photos(plan, run)
    tag_plan(run, tagger, plan, settings, workers=workers, kept=kept, progress=progress)
    for name in run.failures.ids() & run.tags.ids():  # failed earlier, then repaired
        run.failures.discard(name)
    counts = tag_counts(run, plan, vocabulary)
    run.write_text(PLAIN_LIST, plain_list(run, plan, vocabulary))
    run.complete(plan.order, counts)
    return counts


def tag_plan(
    run: RunFolder,
    tagger: ImageTagger | Callable[[], ImageTagger],
    plan: Plan,
    settings: TagCLIPConfig,
    *,
    workers: int = 2,
    kept: KeptScores | None = None,
    progress: Callable[[int], object] = lambda images: None,
) -> None:
    """Tags what is left of a plan, or of a part of one; see `run_tagging` for the arguments."""
    with ThreadPoolExecutor(max_workers=max(1, workers)) as threads:
        batches = _unfinished(plan, run, settings)
        progress(len(plan.images) - sum(image.id not in run.tags for batch in batches for image in batch))
        for file, error in plan.unreadable:
            if file.id not in run.tags:
                run.failures.discard(file.id)
                run.fail(file.id, file.recorded, "decode", error)
        if batches:
            from tagclip.tagger import ImageTagger  # and with it torch, which a run that is done does without

            maker = tagger if isinstance(tagger, ImageTagger) else tagger()
            _tag_batches(run, maker, batches, threads, kept, progress)


def _tag_batches(
    run: RunFolder,
    tagger: ImageTagger,
    batches: list[list[PlannedImage]],
    threads: ThreadPoolExecutor,
    kept: KeptScores | None,
    progress: Callable[[int], object],
) -> None:
    from wsss.pipeline.batch import BatchRunner, finite_results
    from wsss.pipeline.decoding import decode_batches

    def score(images: Sequence[PlannedImage], inputs: Tensor) -> list[TagResult | None]:
        return finite_results(tagger, tagger.score(inputs), images[0].grid)

    runner = BatchRunner(tagger.model, score)
    for batch in decode_batches(batches, threads, tagger.model, tagger.config.image):
        missing = sum(image.id not in run.tags for image in batch.images)
        for image, error in batch.failures:
            if image.id not in run.tags:
                missing += 1
                run.fail(image.id, image.file.recorded, "decode", error)
        if batch.images:
            _tag(run, runner, batch, tagger.vocabulary, kept)
        progress(missing)
    runner.finish()


def tag_counts(run: RunFolder, plan: Plan, vocabulary: Vocabulary) -> dict[str, Any]:
    """What a finished run holds; the same however often it was cut."""
    tags: Counter[str] = Counter()
    tagged = [name for name in plan.order if name in run.tags]
    for name in tagged:
        tags.update(run.tags[name]["tags"])
    return {
        "images": len(plan.order),
        "tagged": len(tagged),
        "failures": len(plan.order) - len(tagged),
        "tags": {name: tags[name] for name in vocabulary.names if tags[name]},
    }


def plain_list(run: RunFolder, plan: Plan, vocabulary: Vocabulary) -> str:
    """The tags as plain text, `id class class` a line, in input order."""
    stream = io.StringIO()
    done = (name for name in plan.order if name in run.tags)
    write_plain(((name, [vocabulary.index(tag) for tag in run.tags[name]["tags"]]) for name in done), stream)
    return stream.getvalue()


def _unfinished(plan: Plan, run: RunFolder, settings: TagCLIPConfig) -> list[list[PlannedImage]]:
    """Batches with something left to do. Images that failed to decode earlier are tried again: they may be fixed."""
    batches = []
    for batch in plan.batches:
        waiting = [image for image in batch if image.id not in run.tags]
        if any(image.id not in run.failures or not _still_fails(run, image, settings) for image in waiting):
            batches.append(waiting if run.was_finished else batch)
            for image in waiting:
                run.failures.discard(image.id)
    if not run.was_finished:
        return batches
    images = [image for batch in batches for image in batch]
    groups = plan_batches([image.grid for image in images], settings.batch_size, settings.batch_patches)
    return [[images[place] for place in group] for group in groups]


def _still_fails(run: RunFolder, image: PlannedImage, settings: TagCLIPConfig) -> bool:
    return run.failures[image.id]["stage"] != "decode" or not decodes(image, settings.image)


def _tag(
    run: RunFolder,
    runner: BatchRunner[TagResult],
    batch: DecodedBatch,
    vocabulary: Vocabulary,
    kept: KeptScores | None,
) -> None:
    outcome = runner(batch.images, batch.inputs)
    run.tags.append(
        tag_line(image.tagged(result.indices, result.scores), vocabulary, kept=kept)
        for image, result in outcome.done
        if image.id not in run.tags
    )
    for image, error in outcome.failed:
        if image.id not in run.tags:
            run.fail(image.id, image.file.recorded, "tags", error)
