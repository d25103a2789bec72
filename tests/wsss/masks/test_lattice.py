"""The permutohedral lattice on tensors: equal to the point-by-point one, however the work is cut up."""

import numpy as np
import pytest
import torch

from tagclip.errors import UsageError
from tests.oracle.lattice import lattice_filter
from wsss.masks import lattice
from wsss.masks.lattice import PermutohedralLattice, SparseRows


def points(count=150, dimensions=5, spread=4.0, seed=0):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)) * spread


def columns(count=150, number=3, seed=1):
    return torch.rand(count, number, generator=torch.Generator().manual_seed(seed))


def grid(height=12, width=17, sxy=1.0):
    y, x = torch.meshgrid(torch.arange(height) / sxy, torch.arange(width) / sxy, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)], 1)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
@pytest.mark.parametrize("spread", [0.3, 1.0, 8.0])
def test_equals_the_lattice_point_by_point(dimensions, spread, device):
    features, values = points(dimensions=dimensions, spread=spread), columns()
    found = PermutohedralLattice(features.to(device)).filter(values.to(device))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.cpu().numpy(), lattice_filter(features.numpy(), values.numpy()), rtol=2e-5)


def test_numbers_beyond_32_bits_equal_too():
    features, values = points(dimensions=5, spread=4.0), columns()
    features[0], features[1] = 5000, -5000
    expected = lattice_filter(features.numpy(), values.numpy())
    np.testing.assert_allclose(PermutohedralLattice(features).filter(values).numpy(), expected, rtol=2e-4)


@pytest.mark.parametrize("far", [1e5, 2.0**24, 1e12, torch.inf, torch.nan])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_gaussian_too_narrow_to_number_its_cells(far, sign, device):
    features = points().to(device)
    features[0], features[1] = far * sign, -1e5
    with pytest.raises(UsageError, match="larger deviations"):
        PermutohedralLattice(features)


def test_smooths_like_a_gaussian_of_deviation_one():
    features = grid(41, 41, sxy=2.0)
    kernel = PermutohedralLattice(features)
    impulse = torch.zeros(len(features), 1)
    impulse[20 * 41 + 20] = 1
    response = kernel.filter(impulse)[:, 0]
    offset = features - features[20 * 41 + 20]
    variance = (response[:, None] * offset**2).sum(0) / response.sum()
    np.testing.assert_allclose(variance.numpy(), 1, atol=0.1)
    near = (offset**2).sum(1) < 4
    gaussian = torch.exp(-(offset**2).sum(1) / 2)
    assert (response / response.max() - gaussian)[near].abs().max() < 0.2


def test_one_point():
    found = PermutohedralLattice(torch.tensor([[0.3, 0.1]])).filter(torch.tensor([[2.0]]))
    np.testing.assert_allclose(found.numpy(), lattice_filter(np.array([[0.3, 0.1]]), np.array([[2.0]])), rtol=1e-5)


def test_groups_do_not_see_each_other():
    first, second = points(seed=2), points(80, seed=3)
    values = columns(230)
    together = PermutohedralLattice(torch.cat([first, second]), torch.arange(230).ge(150).long()).filter(values)
    apart = [PermutohedralLattice(first).filter(values[:150]), PermutohedralLattice(second).filter(values[150:])]
    np.testing.assert_allclose(together.numpy(), torch.cat(apart).numpy(), rtol=1e-5)
    mixed = PermutohedralLattice(torch.cat([first, second])).filter(values)
    assert not np.allclose(mixed.numpy(), torch.cat(apart).numpy(), rtol=1e-3)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("POINTS_AT_ONCE", 7), ("TABLE_VALUES", 300), ("TABLE_VALUES", 1), ("LONGEST_SUM", 3)],
)
def test_cut_into_parts_gives_the_same(monkeypatch, setting, value):
    features, values = torch.cat([grid(), grid()]), columns(408, 5)
    whole = PermutohedralLattice(features).filter(values)
    monkeypatch.setattr(lattice, setting, {"cpu": value})
    np.testing.assert_allclose(PermutohedralLattice(features).filter(values).numpy(), whole.numpy(), rtol=1e-6)


def test_the_same_bits_for_any_number_of_threads_and_columns():
    features, values = points(3000), columns(3000, 6)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(PermutohedralLattice(features).filter(values))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    assert torch.equal(PermutohedralLattice(features).filter(values[:, 2:3]), found[0][:, 2:3])


def test_scaled_before_and_after():
    features, values = points(), columns()
    before, after = columns(number=2, seed=4).unbind(1)
    kernel = PermutohedralLattice(features)
    expected = after[:, None] * kernel.filter(before[:, None] * values)
    kernel.scale(before, after)
    np.testing.assert_allclose(kernel.filter(values).numpy(), expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize("longest", [1, 2, 3, 100])
def test_pieces_of_long_rows_have_the_same_product(longest):
    counts = torch.tensor([0, 1, 7, 0, 20, 2, 3])
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
    generator = torch.Generator().manual_seed(0)
    rows = SparseRows(torch.randint(9, (33,), generator=generator).int(), offsets, torch.rand(33, generator=generator))
    table = columns(9)
    pieces = rows.pieces(max(longest, 2))
    product = table
    for piece in pieces:
        assert int(piece.offsets.diff().max()) <= max(longest, 2)
        product = piece @ product
    np.testing.assert_allclose(product.numpy(), (rows @ table).numpy(), rtol=1e-6)
    assert (len(pieces) == 1) == (longest == 100)
