"""What a sweep consists of: every combination once, and nothing that plays no role."""

from __future__ import annotations

import cProfile

import pytest

from dpbench.cell.floors import Floor
from dpbench.cell.rows import describe
from dpbench.cell.spec import Part
from dpbench.protocol import InputError
from dpbench.sweep import engines
from tests.helpers.plans import MadeUp, attacked, cells, planned


def name_of(cell):
    return cell.attack and cell.attack.name


def test_issue_command_expands_to_every_combination_once():
    found = cells(
        defense=("none", "clip", "noise", "prune", "dp"),
        eps=(1.0, 10.0, 1000.0),
        batch_size=(1, 4),
        attack=("dlg", "idlg", "inverting-gradients"),
    )
    # per batch size: 2 images without any search, a noise floor per attack, and 1+1+1+1+3 defences per attack
    assert len(found) == 2 * (2 + 3 + 7 * 3)
    assert len({cell.key() for cell in found}) == len(found)


def test_undefended_and_floors_come_along_unasked():
    found = cells(defense=("dp",), attack=("dlg", "idlg"))
    undefended = {(name_of(c), c.floor) for c in found if c.defence.name == "none"}
    noise = Floor.NOISE_GRADIENT
    assert undefended == {
        *(("dlg", None), ("idlg", None), ("dlg", noise), ("idlg", noise)),
        *((None, Floor.MEAN_IMAGE), (None, Floor.CONSTANT_IMAGE)),
    }
    assert {c.defence.name for c in found if c.floor} == {"none"}


def test_floors_run_after_what_they_judge():
    """An interrupted run has the attacks that were asked for."""
    order = [cell.floor is not None for cell in cells(defense=("dp",))]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("defense", "axis", "values"),
    [
        ("clip", "eps", (1.0, 2.0)),
        ("dp", "prune_ratio", (0.1, 0.2)),
        ("prune", "noise_std", (0.1, 0.2)),
        ("noise", "max_grad_norm", (0.1, 0.2)),
        ("clip", "releases", (1, 4)),
        ("none", "adaptive", (True, False)),
        ("clip", "adaptive", (True, False)),  # the default attack has no answer to clipping
    ],
)
def test_axis_that_does_not_concern_a_defence_does_not_multiply_it(defense, axis, values):
    assert len(attacked(defense=(defense,), **{axis: values})) == 1 + (defense != "none")


@pytest.mark.parametrize(
    ("defense", "axis", "values"),
    [
        ("clip+prune", "max_grad_norm", (0.1, 0.2)),
        ("clip+prune", "prune_ratio", (0.1, 0.2)),
        ("clip+prune", "prune_scope", ("layer", "global")),
        ("dp+prune", "eps", (1.0, 2.0)),
        ("dp", "eps_scope", ("training", "release")),
        ("dp", "delta", (1e-5, 1e-6)),
        ("dp", "accountant", ("pld", "rdp")),
        ("dp", "releases", (1, 4)),
        ("noise", "noise_std", (0.1, 0.2)),
        ("prune", "adaptive", (True, False)),
    ],
)
def test_axis_that_concerns_a_stage_of_a_chain_multiplies_it(defense, axis, values):
    assert len(attacked(defense=(defense,), **{axis: values})) == 1 + 2


def test_noise_multiplier_takes_the_place_of_eps():
    found = [c for c in attacked(defense=("dp",), noise_multiplier=(0.5, 1.0)) if c.defence.name == "dp"]
    assert [c.defence.given for c in found] == [
        {"eps": None, "noise_multiplier": 0.5},
        {"eps": None, "noise_multiplier": 1.0},
    ]


def test_release_scope_has_no_training_run():
    scope = {"eps_scope": ("release",), "train_size": (100, 200), "epochs": (1.0, 2.0)}
    assert len(attacked(defense=("dp",), **scope)) == 2
    assert len(attacked(defense=("dp",), **scope | {"eps_scope": ("training",)})) == 1 + 4


def test_a_default_that_is_typed_is_no_other_cell():
    unsaid = {c.key() for c in cells(defense=("dp", "prune"))}
    said = {"eps": (1.0,), "prune_ratio": (0.9,), "adaptive": (True,), "restarts": (1,), "releases": (1,)}
    assert {c.key() for c in cells(defense=("dp", "prune"), **said)} == unsaid


def test_values_given_twice_count_once():
    assert len(attacked(defense=("dp", "dp"), eps=(1, 1.0, 2.0, 2.0), attack_seed=(0, 0))) == 1 + 2


def test_key_does_not_depend_on_the_sweep_nor_on_how_a_number_was_typed():
    alone = {cell.key() for cell in cells(defense=("dp",), eps=(3.0,))}
    among = {cell.key() for cell in cells(defense=("clip", "dp"), eps=(3, 1.0), batch_size=(1, 4))}
    assert alone <= among


def test_all_attacks_see_one_release_and_all_defences_one_start():
    found = attacked(defense=("clip", "dp"), attack=("dlg", "idlg"), attack_seed=(0, 1))
    releases = {(c.defence, c.attack_seed): c.release_seed() for c in found}
    starts = {(c.attack.name, c.attack_seed): c.search_seed() for c in found}
    assert len(set(releases.values())) == 3 * 2
    assert len(set(starts.values())) == 2 * 2
    for cell in found:
        assert cell.release_seed() == releases[cell.defence, cell.attack_seed]
        assert cell.search_seed() == starts[cell.attack.name, cell.attack_seed]


def test_noise_floor_starts_where_its_attack_starts():
    seeds = {cell.search_seed() for cell in cells(attack=("dlg",)) if cell.attack}
    assert len(seeds) == 1


def test_code_that_changed_makes_other_cells_and_only_of_those_it_decides():
    def keys(code):
        inputs = MadeUp(code=lambda cell: code if name_of(cell) == "dlg" else "same")
        found = planned(inputs, attack=("dlg", "idlg")).cells
        return {(name_of(c), c.floor): c.key() for c in found}

    old, new = keys("old"), keys("new")
    assert old.keys() == new.keys()
    assert {what for what in old if old[what] != new[what]} == {("dlg", None), ("dlg", Floor.NOISE_GRADIENT)}


def test_usual_norm_follows_the_network():
    found = attacked(model=("convnet", "resnet20"))
    assert [(c.batch.model, c.batch.norm, c.told.bn_stats) for c in found] == [
        ("convnet", "none", "none"),
        ("resnet20", "frozen-bn", "running"),
    ]


def test_statistics_multiply_only_networks_that_have_some():
    found = attacked(model=("convnet", "resnet20"), bn_stats=("running", "exact", "none"))
    assert [c.batch.model for c in found] == ["convnet"] + ["resnet20"] * 3


def test_a_generator_multiplies_only_the_attack_that_needs_one():
    found = attacked(attack=("dlg", "latent-projection"), generator=("cifar10", "biggan"))
    assert [(c.attack.name, c.told.generator, c.told.generator_digest) for c in found] == [
        ("dlg", None, ""),
        ("latent-projection", "cifar10", "weights of cifar10"),
        ("latent-projection", "biggan", "weights of biggan"),
    ]


def test_rules_for_labels_play_no_role_where_they_are_known():
    given = {"attack": ("inverting-gradients", "gradinversion"), "label_rule": ("minimum", "sum")}
    rules = {
        labels: [c.attack.given.get("label_rule") for c in attacked(labels=(labels,), **given)]
        for labels in ("known", "inferred")
    }
    assert set(rules["known"]) == {None}
    assert len(rules["known"]) == 2
    assert len(rules["inferred"]) > 2


def test_impossible_combinations_are_left_out_and_named():
    def weights(model, norm, victim):
        if model == "lenet" and victim == "early":
            raise InputError("No early lenet.")
        return "w"

    def images(size, seed, draw):
        if size > 20:
            raise InputError("Only 20 images.")
        return "i"

    given = {"model": ("lenet", "convnet"), "victim": ("early", "untrained"), "batch_size": (1, 21)}
    found = planned(MadeUp(weights, images), **given)
    assert found.left_out == ("No early lenet.", "Only 20 images.")
    assert {(c.batch.model, c.batch.victim, c.batch.batch_size) for c in found.cells} == {
        ("lenet", "untrained", 1),
        ("convnet", "early", 1),
        ("convnet", "untrained", 1),
    }


def test_nothing_possible_is_the_first_reason():
    def refuse(*_):
        raise InputError("Only 20 images.")

    with pytest.raises(InputError, match=r"^Only 20 images\.$"):
        planned(MadeUp(images=refuse))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"attack": ("guess",)}, "Unknown attack 'guess'; known: "),
        ({"defense": ("encrypt",)}, "Unknown defense 'encrypt'; known: none, "),
        ({"threat_model": ("curious",)}, "Unknown threat model 'curious'; known: "),
    ],
)
def test_unknown_parts_are_named_with_those_known(given, said):
    with pytest.raises(InputError, match=said):
        planned(**given)


def test_description_tells_cells_apart():
    found = cells(
        defense=("dp", "clip", "prune", "noise"),
        eps=(1.0, 2.0),
        eps_scope=("training", "release"),
        prune_scope=("layer", "global"),
        adaptive=(True, False),
        batch_seed=(0, 1),
        attack_seed=(0, 1),
        batch_size=(1, 4),
    )
    assert len({describe(cell) for cell in found}) == len(found)


def models_of(**changed) -> set[tuple[str, str]]:
    return {(cell.threat.name, cell.attack.name) for cell in attacked(**changed)}


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


def test_an_attack_that_no_threat_model_asked_for_can_use_is_named():
    found = planned(attack=("dlg", "analytic"), threat_model=("malicious-linear",)).cautions()
    said = "dlg is not run, as it is no attack of the threat model asked for: leave `threat_model` out, "
    assert found == [said + "and it runs under its own."]
    for given in ({}, {"attack": ("dlg", "analytic")}, {"threat_model": ("informed",)}):
        assert planned(**given).cautions() == []


def test_a_threat_model_without_any_attack_is_refused():
    given = {"attack": ("prior-aware",), "threat_model": ("informed", "fishing")}
    with pytest.raises(InputError, match=r"under the threat model fishing: name one of .*, dlg, .*\.$"):
        planned(**given)


def test_what_belongs_to_one_attacker_does_not_multiply_the_others():
    given = {"attack": ("dlg", "analytic", "prior-aware"), "defense": ("dp",)}
    found = attacked(**given, candidates=(5, 10), prior=("wiener", "none"), releases=(1, 10))
    count = {name: sum(c.attack.name == name for c in found) for name in given["attack"]}
    # the undefended cell of each, twice for two numbers of candidates, then both numbers of releases
    assert count == {"dlg": 1 + 2, "analytic": 1 + 2 * 2, "prior-aware": 2 + 2 * 2}
    assert all("releases" not in c.threat.given for c in found if c.defence.name == "none")
    # what is as it is by default is not kept
    assert {c.attack.given.get("prior") for c in found if c.attack.name == "analytic"} == {None, "none"}
    assert all(("candidates" not in c.threat.given) or c.attack.name == "prior-aware" for c in found)


def test_inclusion_concerns_informed_attackers_of_defences_with_noise():
    given = {"attack": ("dlg", "prior-aware"), "defense": ("dp", "clip", "dp+prune")}
    found = attacked(**given, inclusion=(0.5, 1.0), releases=(4,))
    have = {(c.attack.name, c.defence.name, c.threat.given.get("inclusion")) for c in found}
    assert have == {
        *(("prior-aware", name, None) for name in ("none", "clip", "dp", "dp+prune")),
        *(("prior-aware", name, 0.5) for name in ("dp", "dp+prune")),
        *(("dlg", name, None) for name in ("none", "clip", "dp", "dp+prune")),
    }
    assert len({c.key() for c in found}) == len(found)


def test_public_floors_are_nobodys_and_the_informed_attacker_has_none():
    found = cells(attack=("analytic", "prior-aware"))
    floors = {(c.threat.name, name_of(c), c.floor) for c in found if c.floor}
    assert floors == {
        ("honest", None, Floor.MEAN_IMAGE),
        ("honest", None, Floor.CONSTANT_IMAGE),
        ("malicious-linear", "analytic", Floor.NOISE_GRADIENT),
    }


def test_objects_keep_their_own_parameters_and_names_take_all():
    own = Part(name="inverting-gradients", parameters=(("tv", 0.5),))
    found = attacked(attack=(own, "inverting-gradients"), tv=(0.1, 0.2), defense=())
    assert [c.attack.given for c in found] == [{"tv": 0.5}, {"tv": 0.1}, {"tv": 0.2}]


def test_only_attacks_that_have_a_parameter_are_multiplied_by_it():
    given = {
        "model": ("resnet20",),
        "attack": ("gradinversion", "latent-projection", "inverting-gradients", "label-restoration"),
        "terms": ("gradient", "registered"),
        "preset": ("tuned", "paper"),
        "label_rule": ("minimum", "sum"),
        "labels": ("known", "inferred"),
        "generator": ("cifar10", "biggan"),
    }
    found = attacked(**given)
    pairs = [(cell.attack.name, cell.told.labels) for cell in found]
    counts = {name: [pairs.count((name, labels)) for labels in given["labels"]] for name in given["attack"]}
    assert counts == {
        "gradinversion": [4, 8],
        "latent-projection": [2, 2],
        "inverting-gradients": [2, 2],
        "label-restoration": [1, 2],
    }


def test_an_attack_on_labels_alone_has_no_noise_floor():
    found = cells(attack=("label-restoration", "dlg"))
    assert {name_of(cell) for cell in found if cell.floor is Floor.NOISE_GRADIENT} == {"dlg"}


def test_planning_takes_work_in_proportion_to_the_cells():
    """Counted in calls of functions, as seconds depend on who else is at work."""

    def work(batches):
        def plan_and_name():
            found = engines.choose(
                cells(defense=("dp", "clip"), eps=(1.0, 8.0), batch_seed=tuple(range(batches)))
            )
            return {cell.key(): describe(cell) for cell in found}

        profile = cProfile.Profile()
        named = profile.runcall(plan_and_name)
        return sum(each.callcount for each in profile.getstats()), len(named)

    work(1)  # what is computed once
    (few, small), (many, large) = work(20), work(100)
    assert large == 5 * small
    assert many < 5.5 * few
    assert many / large < 1000
