"""The paper's figures beside ours, and what attacks on labels alone are told by."""

from __future__ import annotations

import pandas as pd

from dpbench.cell import registered
from dpbench.report.published import published
from dpbench.report.sentence import sentence
from dpbench.store import schema

registered.load()


def rows(**changed):
    known = {"status": "ok", "defense": "none", "psnr": 10.0, "lpips": 0.5, "batch_size": 8, **changed}
    return schema.frame([schema.checked(known | {"image": i}) for i in range(2)])


def test_published_figures_stand_beside_ours_as_a_trend():
    lines = published(rows(attack="gradinversion", terms="lazy"))
    assert "12.52 dB, LPIPS 0.554" in lines[0]
    assert "here median PSNR 10.00 dB, LPIPS 0.500 of 2 images" in lines[0]
    assert "trend only" in lines[-1]
    both = pd.concat([rows(attack="gradinversion", terms="registered"), rows(attack="dlg")])
    assert len(published(both)) == 2
    assert published(rows(attack="dlg")) == []
    assert published(rows(attack="gradinversion", terms="lazy", defense="clip")) == []


def test_published_figures_stand_beside_each_condition_of_ours():
    table = pd.concat(
        [
            rows(attack="gradinversion", terms="lazy", bn_stats="exact", psnr=12.0),
            rows(attack="gradinversion", terms="lazy", bn_stats="running", psnr=8.0),
        ]
    )
    (line, _) = published(table)
    assert "12.00 dB, LPIPS 0.500 of 2 images (batch size=8, bn stats exact)" in line
    assert "8.00 dB, LPIPS 0.500 of 2 images (batch size=8, bn stats running)" in line


def test_ways_to_compare_gradients_are_not_put_together():
    both = pd.concat(
        [
            rows(attack="gradinversion", terms="lazy", matching=matching, psnr=psnr)
            for matching, psnr in ((None, 9.0), ("cosine", 8.0))
        ]
    )
    assert "9.00 dB" in published(both)[0]
    assert "8.00 dB" in published(both)[0]


def test_labels_alone_are_told_as_labels():
    known = {"psnr": None, "lpips": None, "label_correct": True}
    table = rows(attack="label-restoration", label_rule="minimum", **known)
    assert "100.0% of 2 by label-restoration" in sentence(table)
    assert "labels 100.00% of 2" in published(table)[0]


def test_labels_that_were_given_are_not_called_restored():
    known = {"psnr": None, "lpips": None, "label_correct": True, "labels": "known"}
    table = rows(attack="label-restoration", label_rule="minimum", **known)
    assert sentence(table) == "label-restoration was told the labels (labels known), so it restored none."
    assert published(table) == []


def test_several_attack_seeds_are_no_more_images():
    lazy = rows(attack="gradinversion", terms="lazy")
    both = pd.concat([lazy, lazy.assign(attack_seed=1)], ignore_index=True)
    assert "LPIPS 0.500 of 2 images" in published(both)[0]
