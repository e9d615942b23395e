import pytest
import torch

from attacks.regularisers import L2, TotalVariation


@pytest.mark.parametrize("regulariser", [TotalVariation(0.3), L2(0.3)])
def test_gradient_is_the_finite_difference(regulariser):
    z = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(regulariser, z)


def test_total_variation_is_the_loop():
    z = torch.randn(2, 3, 4, 5)
    down = [
        abs(float(z[b, c, i + 1, j] - z[b, c, i, j]))
        for b in range(2)
        for c in range(3)
        for i in range(3)
        for j in range(5)
    ]
    right = [
        abs(float(z[b, c, i, j + 1] - z[b, c, i, j]))
        for b in range(2)
        for c in range(3)
        for i in range(4)
        for j in range(4)
    ]
    expected = 0.5 * (sum(down) / len(down) + sum(right) / len(right))
    assert float(TotalVariation(0.5)(z)) == pytest.approx(expected, rel=1e-5)


def test_l2_is_the_mean_square():
    assert float(L2(2.0)(torch.tensor([[[[1.0, 3.0]]]]))) == pytest.approx(10.0)
