"""The same setting of two runs lines up, different ones never do, and differences are those of the images."""

import csv
import math
import re

import numpy as np
import pytest

from dpbench import __main__ as program
from dpbench.protocol import InputError
from dpbench.report import escape
from dpbench.report.compare.comparison import compare, merged
from dpbench.report.compare.forest import forest
from dpbench.report.compare.runs import read
from dpbench.report.compare.text import markdown, text
from dpbench.report.compare.words import words

HOSTILE = "<script>alert(1)</script>|\x1b[31m"


def effect(seed, image):
    """What the second run gains on an image: 2 dB and what scatters."""
    return 2 + math.sin(7 * seed + 3 * image)


def flat(psnr):
    return lambda seed, image: psnr + 0.1 * seed


def gained(seed, image):
    return flat(10.0)(seed, image) + effect(seed, image)


@pytest.fixture
def compared(save):
    return lambda *runs: compare(read([save(f"run{i}", rows) for i, rows in enumerate(runs)]))


def only(comparison, measure="psnr"):
    (found,) = (each for _, _, each in comparison.differences() if each.measure == measure)
    return found


def test_differences_are_those_of_the_images(compared, batches):
    found = only(compared(batches(flat(10.0)), batches(gained)))
    effects = np.array([[effect(seed, image) for image in range(2)] for seed in range(8)])
    assert found.pairs == 16
    assert found.groups == 8
    assert found.value == pytest.approx(effects.mean())
    # batches are alike in size, so that Student's interval of the batch means is what to come near to
    spread = 2.365 * effects.mean(1).std(ddof=1) / math.sqrt(8)
    assert found.low == pytest.approx(effects.mean() - spread, abs=0.35 * spread)
    assert found.high == pytest.approx(effects.mean() + spread, abs=0.35 * spread)


def test_results_are_not_called_images(compared, batches):
    """Sixteen images, each attacked undefended and clipped."""
    both = [*batches(flat(10.0)), *batches(flat(9.0), defense="clip")]
    first, second = words(compared(both, batches(gained))).runs
    assert first.endswith("(dpbench 0.2.0, 32 results for 16 images)")
    assert second.endswith("(dpbench 0.2.0, 16 results for 16 images)")


def test_attack_seeds_are_not_called_images(compared, batches):
    first, second = batches(flat(10.0)), batches(gained)
    said = "An image that was attacked several times counts as often, but once among those identified"
    assert said not in words(compared(first, second)).notes
    again = [row | {"attack_seed": 1, "key": f"{row['key']}-again"} for row in first]
    assert said in words(compared([*first, *again], second)).notes


def test_the_picture_names_the_runs_that_it_shows(compared, batches):
    found = compared(batches(flat(10.0)), batches(flat(11.0), defense="clip"), batches(gained))
    (legend,) = forest(found, words(found)).legends
    assert [each.get_text() for each in legend.get_texts()] == ["C"]


def test_no_two_runs_look_the_same(compared, batches):
    """There are six colours and six markers: the eighth run had those of the second."""
    found = compared(*(batches(flat(10.0 + i)) for i in range(9)))
    (legend,) = forest(found, words(found)).legends
    looks = {(each.get_color(), each.get_marker()) for each in legend.get_lines()}
    assert len(looks) == len(legend.get_texts()) == 8


@pytest.mark.parametrize("wins", [(), range(16), range(0, 16, 2)], ids=["none", "all", "one of each batch"])
def test_batches_that_all_changed_alike_do_not_make_an_interval_without_width(compared, batches, wins):
    """Nothing identified in eight batches of two does not mean that nothing ever is."""
    rows = [batches(flat(10.0)), batches(flat(11.0))]
    for place, found in enumerate(((), wins)):
        for i, row in enumerate(rows[place]):
            row |= {"identified": i in found, "gallery_size": 200, "gallery_labels": "same"}
    found = only(compared(*rows), "identified")
    often = 0.025 ** (1 / 8)  # Clopper and Pearson: 8 of 8
    assert found.value == len(wins) / 16
    assert found.low == pytest.approx(often * found.value - (1 - often))
    assert found.high == pytest.approx(often * found.value + (1 - often))


def test_identified_counts_batches_in_which_one_run_has_more(compared, batches):
    rows = [batches(flat(10.0)), batches(flat(11.0))]
    for place, wins in enumerate(({0, 1}, {1, 2, 3, 4, 5, 6})):
        for i, row in enumerate(rows[place]):
            row |= {"identified": i in wins, "gallery_size": 200, "gallery_labels": "same"}
    found = only(compared(*rows), "identified")
    assert found.value == pytest.approx(4 / 16)
    assert found.p == pytest.approx(10 / 16)  # of four batches one or none, or three or four, goes one way
    assert (found.pairs, found.groups) == (16, 8)
    assert -0.25 < found.low < 0 < found.high < 0.75
    for batch in rows:  # the same photographs, each in a batch of its own
        for i, row in enumerate(batch):
            row |= {"batch_size": 1, "batch_seed": i, "image": 0, "original_index": i}
    found = only(compared(*rows), "identified")
    assert found.p == pytest.approx(14 / 64)  # of six photographs one or none, or five or six, goes one way
    for row in rows[1]:
        row["gallery_size"] = 20
    assert "identified" not in {each.measure for *_, each in compared(*rows).differences()}


def test_a_label_is_no_setting_and_a_sample_rate_is_one(compared, batches, dp):
    """One epsilon, two trainings: the noise differs, and they are not compared."""
    private = dp | {"noise_multiplier": 1.5, "sample_rate": 0.0128, "steps": 782}
    other = dp | {"noise_multiplier": 1.1, "sample_rate": 0.005, "steps": 1954}
    undefended = batches(flat(10.0))
    comparison = compared(
        undefended + batches(flat(9.0), defense="dp", **private),
        undefended[:8] + batches(flat(8.0), defense="dp", **other),
    )
    assert [each.head["defense"] for each in comparison.settings] == ["none"]
    assert [(each.run, line.rows["noise_multiplier"].iloc[0]) for each, line in comparison.alone] == [
        ("A", 1.5),
        ("B", 1.1),
    ]
    assert "sample rate 0.0128 | 0.005" in comparison.alone[0][0].nearest
    # other labels, but the same noise in the same training, computed anew
    relabelled = private | {"eps": 2.0, "delta": 1e-6, "eps_release": 9.0, "noise_multiplier": 1.5 + 1e-9}
    comparison = compared(
        batches(flat(9.0), defense="dp", **private), batches(flat(8.0), defense="dp", **relabelled)
    )
    assert only(comparison).pairs == 16
    assert "A ε=1, B ε=2" in words(comparison).blocks[0].title


def test_without_a_noise_multiplier_the_label_counts(compared, batches, dp):
    unknown = dp | {"noise_multiplier": None}
    with pytest.raises(InputError, match=r"most similar ones differ in: eps 1 \| 2\."):
        compared(
            batches(flat(9.0), defense="dp", **unknown),
            batches(flat(9.1), defense="dp", **unknown | {"eps": 2.0}),
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_grad_norm", 2.0),
        ("model", "lenet"),
        ("data", "cifar10"),
        ("labels", "inferred"),
        ("victim", "trained"),
    ],
)
def test_nothing_but_the_attack_may_differ(compared, batches, dp, name, value):
    rows = batches(flat(9.0), defense="dp", **dp)
    other = [row | {name: value} for row in batches(flat(9.5), defense="dp", **dp)]
    with pytest.raises(InputError, match="no setting in common.*" + name.replace("_", " ")):
        compared(rows, other)


def test_what_attacks_differ_in_is_said(compared, batches):
    comparison = compared(batches(flat(10.0), preset="tuned"), batches(gained, preset="paper"))
    assert only(comparison).pairs == 16
    assert words(comparison).differs == ("Differs: dlg: preset tuned | paper",)
    # where a run has several variants, each is compared with its like
    comparison = compared(
        batches(flat(10.0), preset="tuned"),
        batches(flat(10.0), preset="tuned", key="t") + batches(gained, preset="paper", key="p"),
    )
    assert only(comparison).value == 0
    assert [(each.run, line.rows["preset"].iloc[0]) for each, line in comparison.alone] == [("B", "paper")]
    comparison = compared(batches(flat(10.0)), batches(gained, attack="idlg"))
    assert words(comparison).blocks[0].title == "no defence, dlg | idlg"


def test_other_photographs_under_the_same_seed_are_no_pairs(compared, batches):
    """Version 0.1 drew other batches from the same seeds."""
    other = [
        row | {"original_index": row["original_index"] + 100 * (row["batch_seed"] > 2)}
        for row in batches(gained)
    ]
    comparison = compared(batches(flat(10.0)), other)
    assert only(comparison).pairs == 6
    assert any("Left out: 10 pairs of the same seed" in note for note in words(comparison).notes)


@pytest.mark.parametrize(("other", "said"), [(3.0, True), (2.0001, False), (None, False)])
def test_another_model_of_the_same_name_is_no_fair_comparison(compared, batches, other, said):
    rows = batches(flat(10.0)), batches(gained)
    for run, length in zip(rows, (2.0, other), strict=True):
        for row in run:
            row["release_norm"] = length
    found = " ".join(text(words(compared(*rows))).split())
    assert ("No fair comparison of A with B: their undefended gradients" in found) is said


def test_pixels_count_where_they_were_kept(save, batches):
    def first(row):
        return np.full((3, 2, 2), 0.1 * row["image"])

    def second(row):
        return first(row) + 0.5 * (row["batch_seed"] == 3)

    runs = read([save("a", batches(flat(10.0)), first), save("b", batches(gained), second)])
    assert only(compare(runs)).pairs == 14


def test_an_exact_copy_counts_60_db(compared, batches):
    found = only(compared(batches(flat(10.0)), batches(lambda seed, image: math.inf)))
    assert found.value == pytest.approx(60 - 10.35)


def test_repeated_photographs_are_one_group(compared, batches):
    rows = [batches(flat(10.0)), batches(gained)]
    for row in (*rows[0], *rows[1]):
        row["original_index"] //= 4  # each photograph stands in two batches
    found = only(compared(*rows))
    assert (found.pairs, found.groups) == (16, 4)
    assert math.isnan(found.low)


def test_three_runs_are_compared_with_the_first(compared, batches):
    comparison = compared(batches(flat(10.0)), batches(flat(11.0)), batches(flat(13.0)))
    assert [
        (line.run, each.value) for _, line, each in comparison.differences() if each.measure == "psnr"
    ] == [
        ("B", pytest.approx(1)),
        ("C", pytest.approx(3)),
    ]
    table = merged(comparison)
    assert table["psnr_difference"].tolist()[1:] == [pytest.approx(1), pytest.approx(3)]
    assert table["setting"].tolist() == [1, 1, 1]


def test_the_command_writes_what_it_prints(save, batches, dp, tmp_path, capsys):
    first = batches(flat(10.0), preset="tuned") + batches(flat(9.0), defense="dp", **dp)
    second = batches(gained, preset="paper") + batches(flat(9.5), defense=f"prune+{HOSTILE}", prune_ratio=0.9)
    folders = [save("first", first), save(f"{'long name ' * 12}", second)]
    assert program.main(["compare", *folders, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.split(f"\n\n{tmp_path}")[0].splitlines())) <= 80
    assert "\x1b" not in printed
    assert "B - A      16  +2.0 [" in printed
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.findall(r"(?:src|href)=.https?:", page)
    assert "<script" not in (tmp_path / "out" / "compare.md").read_text()
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "out" / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert float(rows[1]["psnr_difference"]) == pytest.approx(2, abs=0.3)


def test_all_words_of_a_comparison_are_in_markdown_too(compared, batches):
    said = words(compared(batches(flat(10.0)), batches(gained)))
    assert all(escape.markdown(cell) in markdown(said) for cell in said.blocks[0].rows[2])
    assert "safe" not in text(said)


def refused(capsys, *arguments):
    assert program.main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


def test_bad_input_is_one_sentence(save, batches, tmp_path, capsys):
    run, copy = save("run", batches(flat(10.0))), save("copy", batches(flat(10.0)))
    other = save("other", batches(flat(9.0), model="lenet"))
    (tmp_path / "empty").mkdir()
    failed = save("failed", [row | {"status": "failed"} for row in batches(flat(10.0))])
    assert "two or more" in refused(capsys, run)
    assert "There is no folder" in refused(capsys, run, str(tmp_path / "nothing"))
    assert "no config.toml" in refused(capsys, run, str(tmp_path / "empty"))
    assert "no image that was attacked" in refused(capsys, run, failed)
    assert "given twice" in refused(capsys, run, f"{run}/")
    assert "the same results" in refused(capsys, run, copy)
    assert "differ in: model convnet | lenet" in refused(capsys, run, other)
    assert "--leaderboard" in refused(capsys)
    assert "Give either" in refused(capsys, run, "--leaderboard", run)
    assert "At most 26" in refused(capsys, *[run] * 27)
