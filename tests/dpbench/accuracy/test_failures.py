"""`dpbench.utility` where somebody's model or defence breaks: a failed row, beside those of the others."""

import pytest
from torch import nn

import defenses
import dpbench
from dpbench.protocol import InputError
from tests.helpers.registries import as_in_a_new_process

USUAL = {"epochs": 1, "train_batch_size": 32, "delta": 1e-3, "accountant": "rdp", "learning_rate": 0.02}


def utility(*arguments, **more):
    return dpbench.utility(*arguments, **{**USUAL, "device": "cpu", "progress": False, **more})


@pytest.mark.parametrize(
    ("process", "said"),
    [
        (
            lambda gradients: None,
            "odd fails in training (TypeError: odd must hand back a tuple of tensors, not",
        ),
        (lambda gradients: gradients[7], "odd fails in training (IndexError: tuple index out of range)."),
    ],
)
def test_a_defence_that_breaks_is_a_failed_row_beside_the_others(linear, train, test, process, said):
    with as_in_a_new_process():

        @defenses.defense("odd")
        class Odd(defenses.PostProcessor):
            def process(self, gradients, generator):
                return process(gradients)

        found = utility(linear, train, test, defense="odd", seeds=0)
    assert found["status"].tolist() == ["ok", "failed"]
    assert found["error"].iloc[1].startswith(said)


def test_a_model_that_fails_on_a_batch_is_a_failed_row(train, test):
    """Poisson sampling draws batches of one image, of which batch norm has no variance."""

    def make_model():
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    few = tuple(each[:16] for each in train)
    given = {"defense": ["prune", "dp"], "epochs": 4, "train_batch_size": 2, "seeds": 0, "progress": False}
    with pytest.raises(InputError, match="batch norm by GroupNorm"):
        dpbench.utility(make_model, few, test, **given)
    with pytest.raises(InputError, match=r"could be trained.*fails in training.*every size"):
        dpbench.utility(make_model, few, test, **given | {"defense": "prune"})
