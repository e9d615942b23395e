import pytest
import torch

from attacks.exact.newton import conjugate_gradients, linearised


def problem(scale, seed=0):
    """Residuals of 40 equations in 6 unknowns, and their matrix, both times `scale`."""
    generator = torch.Generator().manual_seed(seed)
    matrix, right = torch.randn(40, 6, generator=generator), torch.randn(40, generator=generator)
    return (lambda x: scale * (matrix @ x - right)), scale * matrix, scale * right


@pytest.mark.parametrize("damping", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e12])
def test_a_step_is_that_of_least_squares_however_large_the_residuals_are(scale, damping):
    """At 1e12, the squared norm of the gradient is above what a float32 holds."""
    residuals, matrix, right = problem(scale)
    step = conjugate_gradients(*linearised(residuals, torch.zeros(6)), count=6, damping=damping)
    matrix, right = matrix.double(), right.double()
    normal = matrix.T @ matrix + damping * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(
        step.double(), torch.linalg.solve(normal, matrix.T @ right), rtol=1e-3, atol=1e-9
    )


def plain(forth, back, values, count):
    """Conjugate gradients as textbooks have them."""
    left = -back(values)
    step, direction, squared = torch.zeros_like(left), left, left.square().sum()
    for _ in range(count):
        curved = back(forth(direction))
        size = squared / (direction * curved).sum()
        step, left = step + size * direction, left - size * curved
        before, squared = squared, left.square().sum()
        direction = left + squared / before * direction
    return step


def test_the_scale_of_the_residuals_rounds_nothing():
    """A thousand steps of a search must not depend on whether they were scaled."""
    for seed in range(5):
        parts = linearised(problem(300.0, seed)[0], torch.zeros(6))
        assert torch.equal(conjugate_gradients(*parts, count=4), plain(*parts, count=4))
