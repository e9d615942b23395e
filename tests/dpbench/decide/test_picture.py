"""The picture of a decision, whatever was asked for."""

import pytest

from dpbench.decide import choices as deciding
from dpbench.decide.picture import picture
from tests.helpers.figures import assert_readable


@pytest.mark.parametrize("budgets", [(1.0, 8.0), (1.0, 1.1, 1.2, 1.3, 3.0), (0.1, 0.5, 1, 2, 4, 8, 16, 1e6)])
def test_names_of_budgets_stand_beside_each_other(budgets):
    training = deciding.Training(train_size=1000, train_batch_size=100, epochs=1, delta=1e-5)
    chosen = [deciding.for_eps(training, eps, kappa=0.1, images_per_user=1) for eps in budgets]
    figure = picture(training, chosen)
    axis = figure.axes[1]
    assert axis.get_xticks() == pytest.approx([choice.eps for choice in chosen])
    names = [text.get_text() for text in axis.get_xticklabels()]
    assert names[0] == f"{budgets[0]:g}"
    assert names[-1] == {1e6: "1e6"}.get(budgets[-1], f"{budgets[-1]:g}")
    assert_readable(figure)
