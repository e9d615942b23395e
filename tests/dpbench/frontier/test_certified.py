import pytest

from dpbench.frontier.certified import certified_sigma
from dpbench.privacy import reconstruction_bound
from dpbench.protocol import InputError


@pytest.mark.parametrize(("kappa", "sigma"), [(0.1, 4.08), (1 / 200, 1.02)])
def test_the_published_formula(kappa, sigma):
    assert certified_sigma(kappa) == pytest.approx(sigma, abs=0.005)


@pytest.mark.parametrize("kappa", [0.001, 0.1, 0.5])
@pytest.mark.parametrize("releases", [1, 4])
def test_the_bound_is_kappa_and_the_margin_there(kappa, releases):
    sigma = certified_sigma(kappa, margin=0.05, sensitivity=releases**0.5)
    assert reconstruction_bound(sigma, 1.0, releases, kappa) == pytest.approx(kappa + 0.05)


@pytest.mark.parametrize(("kappa", "margin"), [(0.0, 0.05), (0.1, 0.0), (0.96, 0.05)])
def test_what_is_no_chance_is_refused(kappa, margin):
    with pytest.raises(InputError, match="must be above 0 and below 1 together"):
        certified_sigma(kappa, margin)
