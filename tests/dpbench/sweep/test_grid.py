from __future__ import annotations

from dataclasses import asdict, fields, replace

import pytest

from dpbench.cell.grid import CONSTANT_IMAGE, MEAN_IMAGE, NOISE_GRADIENT, Axes, Cell, plan
from dpbench.protocol import InputError


def axes(**changed):
    return Axes(data="samples", device="cpu", version="0", **{"eps": (1.0,), **changed})


def cells(given: Axes) -> list[Cell]:
    draw = "{}{}{}".format
    return list(plan(given, lambda *_: "w", draw, lambda name: f"source of {name}").cells)


def attacked(given: Axes) -> list[Cell]:
    return [cell for cell in cells(given) if not cell.attack.startswith("floor:")]


def test_issue_command_expands_to_every_combination_once():
    found = cells(
        axes(
            defense=("none", "clip", "noise", "prune", "dp"),
            eps=(1.0, 10.0, 1000.0),
            batch_size=(1, 4),
            attack=("dlg", "idlg", "inverting-gradients"),
        )
    )
    # per batch size: 2 images without any search, a noise floor per attack, and 1+1+1+1+3 defences per attack
    assert len(found) == 2 * (2 + 3 + 7 * 3)
    assert len({cell.key() for cell in found}) == len(found)


def test_undefended_and_floors_come_along_unasked():
    found = cells(axes(defense=("dp",), attack=("dlg", "idlg")))
    undefended = {cell.attack for cell in found if cell.defense == "none"}
    assert undefended == {"dlg", "idlg", MEAN_IMAGE, CONSTANT_IMAGE, NOISE_GRADIENT}
    assert {cell.floor_of for cell in found if cell.attack == NOISE_GRADIENT} == {"dlg", "idlg"}


def test_floors_run_after_what_they_judge():
    """An interrupted run has the attacks that were asked for."""
    order = [cell.attack.startswith("floor:") for cell in cells(axes(defense=("dp",)))]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("defense", "axis", "values"),
    [
        ("clip", "eps", (1.0, 2.0)),
        ("dp", "prune_ratio", (0.1, 0.2)),
        ("prune", "noise_std", (0.1, 0.2)),
        ("noise", "max_grad_norm", (0.1, 0.2)),
        ("none", "adaptive", (True, False)),
    ],
)
def test_axis_that_does_not_concern_a_defence_does_not_multiply_it(defense, axis, values):
    assert len(attacked(axes(defense=(defense,), **{axis: values}))) == 1 + (defense != "none")


@pytest.mark.parametrize(
    ("defense", "axis", "values"),
    [
        ("clip+prune", "max_grad_norm", (0.1, 0.2)),
        ("clip+prune", "prune_ratio", (0.1, 0.2)),
        ("clip+prune", "prune_scope", ("layer", "global")),
        ("dp+prune", "eps", (1.0, 2.0)),
        ("dp", "eps_scope", ("training", "release")),
        ("dp", "delta", (1e-5, 1e-6)),
        ("noise", "noise_std", (0.1, 0.2)),
        ("clip", "adaptive", (True, False)),
    ],
)
def test_axis_that_concerns_a_stage_of_a_chain_multiplies_it(defense, axis, values):
    assert len(attacked(axes(defense=(defense,), **{axis: values}))) == 1 + 2


def test_noise_multiplier_takes_the_place_of_eps():
    found = [
        c for c in attacked(axes(defense=("dp",), eps=(), noise_multiplier=(0.5, 1.0))) if c.defense == "dp"
    ]
    assert [(c.eps, c.noise_multiplier) for c in found] == [(None, 0.5), (None, 1.0)]


def test_release_scope_has_no_training_run():
    scope = {"eps_scope": ("release",), "train_size": (100, 200), "epochs": (1.0, 2.0)}
    assert len(attacked(axes(defense=("dp",), **scope))) == 2


def test_every_field_decides_the_key():
    cell = attacked(axes(defense=("dp",)))[-1]
    for field in fields(Cell):
        value = getattr(cell, field.name)
        other = not value if isinstance(value, bool) else f"{value}x" if isinstance(value, str) else 77
        assert replace(cell, **{field.name: other}).key() != cell.key(), field.name


def test_key_does_not_depend_on_the_sweep_nor_on_how_a_number_was_typed():
    alone = {cell.key() for cell in cells(axes(defense=("dp",)))}
    among = {cell.key() for cell in cells(axes(defense=("clip", "dp"), eps=(3.0, 1), batch_size=(1, 4)))}
    assert alone <= among


def test_key_is_stable():
    # a changed key orphans everybody's results: change this on purpose only, with the version
    cell = attacked(axes())[0]
    assert cell.key() == Cell(**dict(reversed(asdict(cell).items()))).key() == KEY


KEY = "8e39003f63464ad3"


def test_all_attacks_see_one_release_and_all_defences_one_start():
    found = attacked(axes(defense=("clip", "dp"), attack=("dlg", "idlg"), attack_seed=(0, 1)))
    releases = {(c.defense, c.attack_seed): c.release_seed() for c in found}
    starts = {(c.attack, c.attack_seed): c.search_seed() for c in found}
    assert len(set(releases.values())) == 3 * 2
    assert len(set(starts.values())) == 2 * 2
    for cell in found:
        assert cell.release_seed() == releases[cell.defense, cell.attack_seed]
        assert cell.search_seed() == starts[cell.attack, cell.attack_seed]
        assert 0 <= cell.search_seed() < 2**63


def test_noise_floor_starts_where_its_attack_starts():
    found = cells(axes(attack=("dlg",)))
    seeds = {cell.search_seed() for cell in found if "dlg" in (cell.attack, cell.floor_of)}
    assert len(seeds) == 1


def test_an_attack_whose_source_changed_is_another_cell_and_floors_without_it_are_not():
    def keys(code):
        found = plan(axes(attack=("dlg",)), lambda *_: "w", lambda *_: "i", lambda _: code).cells
        return {(c.attack, c.floor_of): c.key() for c in found}

    old, new = keys("old"), keys("new")
    assert {what[0] for what in old if old[what] == new[what]} == {MEAN_IMAGE, CONSTANT_IMAGE}


def test_usual_norm_follows_the_network():
    found = attacked(axes(model=("convnet", "resnet20")))
    assert [(c.model, c.norm, c.bn_stats) for c in found] == [
        ("convnet", "none", "none"),
        ("resnet20", "frozen-bn", "running"),
    ]


def test_impossible_combinations_are_left_out_and_named():
    def weights(model, norm, victim):
        if model == "lenet" and victim == "early":
            raise InputError("No early lenet.")
        return "w"

    def images(size, seed, draw):
        if size > 20:
            raise InputError("Only 20 images.")
        return "i"

    given = axes(model=("lenet", "convnet"), victim=("early", "untrained"), batch_size=(1, 21))
    planned = plan(given, weights, images, lambda _: "")
    assert planned.left_out == ("No early lenet.", "Only 20 images.")
    assert {(c.model, c.victim, c.batch_size) for c in planned.cells} == {
        ("lenet", "untrained", 1),
        ("convnet", "early", 1),
        ("convnet", "untrained", 1),
    }


def test_nothing_possible_is_the_first_reason():
    def refuse(*_):
        raise InputError("Only 20 images.")

    with pytest.raises(InputError, match=r"^Only 20 images\.$"):
        plan(axes(), lambda *_: "w", refuse, lambda _: "")


def test_description_tells_cells_apart():
    found = cells(
        axes(
            defense=("dp", "clip", "prune", "noise"),
            eps=(1.0, 2.0),
            eps_scope=("training", "release"),
            prune_scope=("layer", "global"),
            adaptive=(True, False),
            batch_seed=(0, 1),
            attack_seed=(0, 1),
            batch_size=(1, 4),
        )
    )
    assert len({cell.describe() for cell in found}) == len(found)


def models_of(**changed) -> set[tuple[str, str]]:
    return {(cell.threat_model, cell.attack) for cell in attacked(axes(**changed))}


def test_each_attack_has_its_own_attacker():
    found = models_of(attack=("dlg", "analytic", "prior-aware"))
    assert found == {("honest", "dlg"), ("malicious-linear", "analytic"), ("informed", "prior-aware")}


def test_threat_model_chooses_among_the_attacks_and_brings_its_own():
    assert models_of(threat_model=("informed",)) == {("informed", "prior-aware")}
    assert models_of(attack=("dlg", "analytic"), threat_model=("honest",)) == {
        ("honest", "dlg"),
        ("honest", "analytic"),
    }
    assert models_of(threat_model=("malicious-linear", "honest")) == {
        ("malicious-linear", "analytic"),
        ("honest", "inverting-gradients"),
    }


def test_what_belongs_to_one_attacker_does_not_multiply_the_others():
    given = {"attack": ("dlg", "analytic", "prior-aware"), "defense": ("dp",)}
    found = attacked(axes(**given, candidates=(5, 10), prior=("wiener", "none"), releases=(1, 10)))
    count = {name: sum(c.attack == name for c in found) for name in given["attack"]}
    # the undefended cell of each, twice for two numbers of candidates, then both numbers of releases
    assert count == {"dlg": 1 + 2, "analytic": 1 + 2 * 2, "prior-aware": 2 + 2 * 2}
    assert {c.releases for c in found if c.defense == "none"} == {1}
    assert {c.prior for c in found if c.attack == "analytic"} == {None, "wiener", "none"}
    assert all((c.candidates is None) == (c.attack != "prior-aware") for c in found)


def test_inclusion_concerns_informed_attackers_of_defences_with_noise():
    given = {"attack": ("dlg", "prior-aware"), "defense": ("dp", "clip", "dp+prune")}
    found = attacked(axes(**given, inclusion=(0.5, 1.0), releases=(4,)))
    have = {(c.attack, c.defense, c.inclusion) for c in found if c.attack == "prior-aware"}
    assert have == {
        ("prior-aware", "none", None),
        ("prior-aware", "clip", None),
        *(("prior-aware", defense, q) for defense in ("dp", "dp+prune") for q in (None, 0.5)),
    }
    assert {c.inclusion for c in found if c.attack == "dlg"} == {None}
    assert len({c.key() for c in found}) == len(found)


def test_public_floors_are_nobodys_and_the_informed_attacker_has_none():
    found = cells(axes(attack=("analytic", "prior-aware")))
    floors = {(c.threat_model, c.attack, c.floor_of) for c in found if c.attack.startswith("floor:")}
    assert floors == {
        ("honest", MEAN_IMAGE, None),
        ("honest", CONSTANT_IMAGE, None),
        ("malicious-linear", NOISE_GRADIENT, "analytic"),
    }
