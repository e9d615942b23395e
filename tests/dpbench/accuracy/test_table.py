"""The accuracies as they are printed."""

import io

import pytest
from rich.console import Console

from dpbench.accuracy.table import frame, show


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_number_is_cut(width):
    rows = [
        {
            "defense": defense,
            "eps": eps,
            "noise_multiplier": sigma,
            "prune_ratio": ratio,
            "max_grad_norm": 1.0,
        }
        | {"utility_model": model, "utility_seed": seed, "accuracy": accuracy + seed / 1000, "chance": 0.1}
        for model, accuracy in (("convnet-tanh", 0.5), ("[b]their own model[/b]" + "x" * 70, 0.6))
        for defense, eps, sigma, ratio in (
            ("none", None, None, None),
            ("dp+prune", 0.125, 11.138750334, 0.9),
            ("dp+prune", 1000.0, 0.0001234567, 0.999),
            ("clip+" * 20 + "prune", None, None, 0.9),
            ("clip+" * 20 + "prune", None, None, 0.99),
        )
        for seed in range(3)
    ]
    console = Console(width=width, record=True, file=io.StringIO())
    show(frame(rows), console)
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for number in ("0.125", "11.14", "0.0001235", "0.999", "50.1%", "60.2%"):
        assert number in words
    assert "[b]their" in words
