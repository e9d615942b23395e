from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dpbench.assets import AssetUnavailable
from dpbench.metrics import METRICS, matched, measure, metric, registered
from dpbench.protocol import InputError
from dpbench.store import Column, columns, schema

pytestmark = pytest.mark.usefixtures("scratch_registry")
GREY = torch.full((3, 32, 32), 0.5)
LABELS = torch.tensor([3, 1])


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def scored(size=32, **changes):
    originals = noise(2, 3, size, size)
    outputs = (originals + 0.1 * noise(2, 3, size, size, seed=1)).flip(0)
    given = {"found_labels": LABELS.flip(0), "others": (noise(4, 3, size, size, seed=2), torch.arange(4))}
    return matched(outputs, originals, LABELS, GREY[:, :size, :size], **(given | changes))


def column(name, role="measured", dtype="float64"):
    return Column(name, dtype, role, "a test's", "dB")


def test_a_metric_is_one_function_with_its_columns_and_floor():
    @metric("peak", columns=(column("peak"), column("peak_at", "provenance")), better="higher", floor=True)
    def peak(scored):
        return {"peak": scored.images.amax((1, 2, 3)), "peak_at": [None, 2.0]}

    declared = registered()["peak"]
    assert (declared.better, declared.floor, declared.function) == ("higher", True, peak)
    assert [c.name for c in declared.columns] == ["peak", "peak_at", "peak_floor"]
    assert columns()["peak_floor"] == Column(
        "peak_floor", "float64", "measured", "highest peak among the floors of the same image", "dB"
    )
    given = scored()
    first, second = (schema.checked(row) for row in measure(given))
    assert first["peak"] == float(given.images[0].max())
    assert "peak_at" not in first
    assert second["peak_at"] == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (None, "Metric off must return its columns with values, a dict, not NoneType"),
        ({"off": 3.0}, "Metric off must give a value of off for each original, not float"),
        ({"off": torch.tensor(3.0)}, "Metric off must give a value of off for each original, not float"),
        ({"off": "ab"}, "Metric off must give a value of off for each original, not str"),
        ({"off": ["a", "b"]}, "Column off holds float64, not 'a'"),
        ({"off": [True, False]}, "Column off holds float64, not True"),
    ],
)
def test_what_a_metric_returns_in_place_of_a_number_for_each_original(values, said):
    metric("off", columns=(column("off"),))(lambda scored: values)
    with pytest.raises((TypeError, ValueError), match=rf"^{said}\.$"):
        measure(scored())


def test_values_of_numpy_and_missing_ones():
    found = {"ones": np.ones(2, np.float32), "gaps": [np.float32("nan"), torch.tensor(2.0)]}
    metric("ones", columns=(column("ones"), column("gaps")))(lambda scored: found)
    first, second = measure(scored())
    assert (first["ones"], first.get("gaps"), second["gaps"]) == (1.0, None, 2.0)


def test_a_metric_that_works_in_place_changes_no_other():
    given = scored()
    before = measure(given)

    @metric("in_place", columns=(column("in_place"),))
    def in_place(scored):
        scored.others[0].zero_()
        return {"in_place": scored.images.sub_(scored.originals).abs_().amax((1, 2, 3))}

    metric("after", columns=(column("after"),))(lambda s: {"after": s.images.mean((1, 2, 3))})
    after = measure(given)
    assert [row.pop("after") for row in after] == given.images.mean((1, 2, 3)).tolist()
    assert [{name: row[name] for name in was} for row, was in zip(after, before, strict=True)] == before
    assert measure(given)[0]["psnr"] == before[0]["psnr"]


def test_a_column_of_a_type_that_results_do_not_have():
    with pytest.raises(
        TypeError, match=r"of off must be one of boolean, Int64, float64, string, not int64\.$"
    ):
        metric("off", columns=(column("off", dtype="int64"),))


def test_a_value_for_each_part_of_an_original_is_refused():
    @metric("parts", columns=(column("parts"),), better="higher")
    def parts(scored):
        return {"parts": scored.images.amax((2, 3))}

    with pytest.raises(ValueError, match="parts has several values of parts for an original"):
        measure(scored())


def test_every_metric_of_ours_fills_its_columns(random_trunks):
    rows = measure(scored(lpips_net="vgg"))
    named = {c.name for m in registered().values() for c in m.columns if not c.name.endswith("_floor")}
    assert [set(row) for row in rows] == [named, named]
    assert all(schema.checked(row) for row in rows)
    assert [row["label_correct"] for row in rows] == [True, True]
    assert {row["lpips_net"] for row in rows} == {row["iip_net"] for row in rows} == {"vgg"}
    assert {row["gallery_size"] for row in rows} == {5}
    assert {row["iip_chance"] for row in rows} == {0.2}


def test_what_cannot_be_computed_leaves_its_columns_empty():
    row = measure(scored(size=8, others=None, found_labels=None))[0]
    assert set(row) == {"psnr", "fft2d"}  # too small for a window or a trunk, no gallery, no labels


def test_an_attack_on_labels_alone_has_no_scores_of_images():
    rows = measure(scored(rebuilds_images=False, found_labels=torch.tensor([1, 1])))
    assert rows == [{"label_correct": False}, {"label_correct": True}]


def test_labels_follow_the_match():
    rows = measure(scored(found_labels=torch.tensor([1, 9])))
    assert [row["label_correct"] for row in rows] == [False, True]


def test_an_exact_image_has_infinite_psnr_and_nan_is_empty():
    @metric("nan", columns=(column("nan"),))
    def nan(scored):
        return {"nan": torch.tensor([math.nan, 1.0])}

    originals = noise(2, 3, 16, 16)
    rows = measure(matched(originals, originals, LABELS, GREY[:, :16, :16]))
    assert rows[0]["psnr"] == math.inf
    assert "nan" not in rows[0]
    assert rows[1]["nan"] == 1


@pytest.mark.parametrize(
    ("error", "passes"),
    [(InputError("too small"), False), (AssetUnavailable("gone"), True), (IndexError("bug"), True)],
)
def test_only_an_input_error_means_not_computable(error, passes):
    @metric("broken", columns=(column("broken"),))
    def broken(scored) -> dict[str, Tensor]:
        raise error

    if passes:
        with pytest.raises(type(error), match=str(error)):
            measure(scored())
    else:
        assert "broken" not in measure(scored())[0]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [({"other": [1.0, 2.0]}, "returns other, which"), ({"short": [1.0]}, "1 of short for 2 originals")],
)
def test_what_a_metric_returns_is_checked(values, sentence):
    @metric("short", columns=(column("short"),))
    def short(scored):
        return values

    with pytest.raises(ValueError, match=sentence):
        measure(scored())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"columns": (column("new", "attack"),)}, "new must have the role"),
        ({"columns": (column("else"),), "better": "lower"}, "does not declare"),
        ({"columns": (column("new"),), "floor": True}, "needs `better`"),
        ({"columns": (column("new"), column("attack", dtype="Int64"))}, "needs another name"),
    ],
)
def test_a_declaration_that_cannot_be_right_is_refused(given, sentence):
    with pytest.raises(TypeError, match=sentence):
        metric("new", **given)(lambda scored: {})
    assert "new" not in METRICS


def test_an_entry_point_must_be_a_metric():
    METRICS.add("plain", len)
    with pytest.raises(TypeError, match="'plain' is no metric"):
        registered()


def test_a_name_has_one_metric():
    with pytest.raises(ValueError, match="'psnr' is registered already: dpbench"):
        metric("psnr", columns=(column("psnr"),))(lambda scored: {})
