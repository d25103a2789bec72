"""The rest of the family against arrays recorded from the authors' running code."""

import pytest

from tests.golden_more import METHODS, more_methods


def test_every_method_has_a_case():
    assert {prefix for prefix, _ in more_methods()} == set(METHODS)


@pytest.mark.parametrize(("prefix", "case"), more_methods(), ids=lambda value: str(value))
def test_every_array(golden_clip, prefix, case):
    found = METHODS[prefix](golden_clip, case)
    assert set(found) == set(case.arrays()) - {"tags"}
    beyond = {name: str(one) for name, one in found.items() if not one.value <= one.limit}
    assert not beyond
