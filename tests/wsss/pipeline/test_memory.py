"""As many mask workers as have room for the largest photo."""

from tagclip.images import Size
from wsss.config import CrfConfig, MaskConfig
from wsss.pipeline.memory import PROCESS, available_memory, cores, mask_memory, workers_that_fit

PHONE, HUGE = Size(3000, 4000), Size(6000, 8500)  # 12 and 51 megapixels


def test_a_side_to_refine_at_bounds_the_memory_of_large_photos():
    assert mask_memory(HUGE, MaskConfig()) < 2 * 2**30
    assert mask_memory(HUGE, MaskConfig(max_refine_side=None)) > 12 * 2**30
    assert mask_memory(HUGE, MaskConfig(max_refine_side=None, refiner="none")) < 5 * 2**30
    assert mask_memory(Size(375, 500), MaskConfig()) < PROCESS + 100 * 2**20


def test_the_crf_on_tensors_takes_more():
    tensors = MaskConfig(crf=CrfConfig(engine="torch"))
    assert mask_memory(Size(375, 500), tensors) - mask_memory(Size(375, 500), MaskConfig()) > 300 * 2**20
    assert mask_memory(PHONE, tensors) > mask_memory(PHONE, MaskConfig())
    unused = MaskConfig(refiner="none", crf=CrfConfig(engine="torch"))
    assert mask_memory(PHONE, unused) == mask_memory(PHONE, MaskConfig(refiner="none"))


def test_workers_that_fit():
    whole = MaskConfig(max_refine_side=None)
    one = mask_memory(PHONE, whole)
    assert workers_that_fit([Size(300, 400), PHONE], whole, free=int(1.3 * one)) == 1
    assert workers_that_fit([PHONE], whole, free=0) == 1
    assert workers_that_fit([PHONE], whole, free=1000 * one) == cores()
    assert workers_that_fit([], whole, free=1000 * one) == cores()
    assert 1 <= workers_that_fit([PHONE], MaskConfig()) <= cores()
    assert 0 < available_memory() < 2**50
