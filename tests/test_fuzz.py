"""A bounded part of `python -m tests.fuzz`: damaged and hostile files for every reader."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import attempt, mutate, targets


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_every_seed_is_understood(target, tmp_path):
    for number, seed in enumerate(target.seeds):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert attempt(target, seed, folder) is None


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False), number=st.integers(0, 100))
def test_damaged_files_are_understood_or_refused(target, rng, number, tmp_path_factory):
    case = mutate(target.seeds[number % len(target.seeds)], rng)
    problem = attempt(target, case, tmp_path_factory.mktemp("case"))
    assert problem is None, problem
