"""The benchmarks' counters against known answers, and the runner that has to end in time."""

import os
import re
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import tyro
from torch.nn import functional as F

import attacks
from attacks.engine import forget
from attacks.engine.search import REPORTS
from benchmarks import engine, executors, gpu, kernel_times, parity
from benchmarks.cases import AffineNorm, Case, scene, with_affine_norm, with_batch_norm
from benchmarks.engine import measured, parsed
from benchmarks.gpu import Options, Step
from benchmarks.measure import Operations, peak
from benchmarks.roofline import Work, work
from benchmarks.side_by_side import question
from dpbench.protocol import InputError
from dpbench.sweep.options import parse
from tests.helpers.exports import BARE_RUN, FIGURES_IN_ONE_FILE


def test_operations_are_those_that_compute():
    x = torch.ones(4, 4)
    with Operations() as counted:
        (x.t().reshape(2, 8)[0] + 1).sum()  # the reshape of a transpose copies
    assert counted.count == 3


def test_work_of_a_convolution_and_a_product():
    x, w = torch.ones(2, 3, 8, 8), torch.ones(5, 3, 3, 3)
    with Work() as noted:
        F.conv2d(x, w, padding=1)
        (torch.ones(4, 6) @ torch.ones(6, 7)).exp()
    convolution = (2 * (2 * 5 * 64) * 27, 4 * (x.numel() + w.numel() + 2 * 5 * 64))
    assert noted.done == [convolution, (2 * 4 * 6 * 7, 4 * (24 + 42 + 28))]


def test_work_of_an_iteration_is_that_of_a_double_backward():
    """Forward, two more for the parameter gradient, and for most of these two of their own."""
    found = scene(Case("lenet", 32, 2), "cpu")
    with Work() as forward:
        found.model(found.images)
    once, whole = (sum(operations for operations, _ in done) for done in (forward.done, work(found)))
    assert 4 < whole / once < 9


@pytest.mark.parametrize("each", [0, 1, 3])
def test_waits_are_of_iterations_and_not_of_reports(each, monkeypatch):
    """A search that waits `each` times an iteration, and once for each of its reports."""
    asked = []

    def search(found, name, iterations):
        asked.append(iterations)
        reports = len({*range(0, iterations, max(1, iterations // REPORTS)), iterations})
        for _ in range(each * iterations + reports):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr(engine, "run", search)
    assert engine.waits(None, "graph") == each
    assert min(asked) >= REPORTS


def test_peak_memory_is_that_of_the_block():
    with peak("cpu") as mib:
        block = torch.ones(64 * 2**18)
    assert mib() == pytest.approx(64, abs=8)
    del block


def test_cases_are_the_same_every_time_and_labels_are_all_different():
    first, second = (scene(Case("lenet", 32, 4), "cpu") for _ in range(2))
    assert torch.equal(first.start, second.start)
    assert all(torch.equal(a, b) for a, b in zip(first.gradients, second.gradients, strict=True))
    assert len(set(first.labels.tolist())) == 4
    assert parsed("resnet50:224:8") == Case("resnet50", 224, 8, 1000)
    assert parsed("resnet50:64:48").classes == 1000
    assert parsed("resnet18:32:8").classes == 10
    with pytest.raises(InputError, match="10 classes"):
        scene(Case("lenet", 32, 11), "cpu")


def test_the_peers_batch_norm_is_the_same_network():
    found = scene(Case("resnet20", 32, 2), "cpu")
    other = with_batch_norm(found.model, found.case)
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in other.modules()) == 19 + 2
    torch.testing.assert_close(other(found.images), found.model(found.images), rtol=1e-4, atol=1e-4)


def test_the_peers_affine_norm_is_the_same_network():
    found = scene(Case("resnet20", 32, 2), "cpu")
    other = with_affine_norm(found.model)
    assert sum(isinstance(m, AffineNorm) for m in other.modules()) == 19 + 2
    assert not any(isinstance(m, AffineNorm) for m in found.model.modules())
    torch.testing.assert_close(other(found.images), found.model(found.images), rtol=1e-4, atol=1e-4)


def test_backends_side_by_side(monkeypatch):
    monkeypatch.setattr("torch._inductor.compile", lambda traced, _: traced)
    begun, both, (eager, compiled) = measured(Case("lenet", 32, 1), "cpu", iterations=3, repeats=1)
    assert [row["engine"] for row in begun] == ["eager"]  # each row is there at once, in the table's columns
    assert [list(row) for row in both] == [list(eager), list(compiled)]
    assert (eager["engine"], compiled["engine"]) == ("eager", "compiled")
    assert eager["compile s"] == 0 < compiled["compile s"]
    assert compiled["distance"] == pytest.approx(eager["distance"], rel=1e-4)
    assert compiled["PSNR dB"] == pytest.approx(eager["PSNR dB"], rel=1e-4)


def test_kernels_of_an_iteration_without_those_of_the_ends(monkeypatch, tmp_path):
    """A search that takes three kernels to begin, and three for each iteration."""

    def events(_, engine, iterations):
        start = [("Memcpy HtoD", 900.0), ("void at::native::reduce_kernel<512>", 50.0), ("triton_red_1", 7.0)]
        step = [("triton_poi_fused_conv_2", 100.0), ("sm90_xmma_dgrad_implicit_gemm", 2000.0)]
        return start + iterations * [*step, ("Memcpy DtoD (Device -> Device)", 10.0)]

    monkeypatch.setattr(kernel_times, "events", events)
    found = kernel_times.by_kind(None, "compiled", 5)
    taken = {name: each for name, each in found.items() if any(each)}
    assert {name: launches for name, (_, launches) in taken.items()} == dict.fromkeys(taken, 1)
    expected = {"Triton": 0.1, "copies": 0.01, "convolutions and matrix products": 2.0}
    assert {name: ms for name, (ms, _) in taken.items()} == pytest.approx(expected)


def test_time_between_iterations_leaves_the_ends_out(monkeypatch):
    ran = []
    monkeypatch.setattr(kernel_times, "run", lambda found, engine, n: ran.append(n))
    monkeypatch.setattr(kernel_times, "seconds", lambda work, device: (work(), 0.7 + 0.01 * ran[-1])[1])
    assert kernel_times.between(None, "graph", 20, 3) == pytest.approx(10.0)


class Profile(nullcontext):
    """A profiler that saw these names, each for 5 microseconds, on the card; and one on the host."""

    def __init__(self, *names):
        super().__init__(self)
        self.names = names

    def events(self):
        kinds = torch.autograd.DeviceType
        seen = [(name, kinds.CUDA) for name in self.names] + [("aten::conv2d", kinds.CPU)]
        time = SimpleNamespace(elapsed_us=lambda: 5.0)
        return [SimpleNamespace(name=name, device_type=kind, time_range=time) for name, kind in seen]


def test_kernels_that_were_not_recorded_are_no_zeros(monkeypatch):
    monkeypatch.setattr(kernel_times, "run", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.profiler, "profile", lambda activities: Profile("## Call", "triton_red_1"))
    assert kernel_times.events(None, "graph", 2) == [("triton_red_1", 5.0)]
    monkeypatch.setattr(torch.profiler, "profile", lambda activities: Profile("## Call"))
    with pytest.raises(RuntimeError, match="recorded nothing"):
        kernel_times.events(None, "graph", 2)


def test_kernel_times_want_a_card(capsys):
    assert kernel_times.main(engine.Options(device="cpu")) == 2
    assert "there is none" in capsys.readouterr().out


def test_cells_a_minute_leave_the_start_out(tmp_path):
    (tmp_path / "cells").mkdir()
    for i, end in enumerate((100, 101, 103, 105, 107)):
        path = tmp_path / "cells" / f"{i}.safetensors"
        path.touch()
        os.utime(path, (end, end))
    assert executors.cells_a_minute(tmp_path, 2) == pytest.approx(60 * 3 / 6)


def test_more_workers_are_measured_against_one(tmp_path, monkeypatch):
    """A run in which each worker takes a second for a cell, but a third and a fourth gain nothing."""
    asked = []

    def run(folder, *words):
        asked.append(words)
        (folder / "cells").mkdir(parents=True)
        for i in range(40):
            path = folder / "cells" / f"{i}.safetensors"
            path.touch()
            end = 100 + i // min(int(words[-1]), 2)
            os.utime(path, (end, end))

    monkeypatch.setattr(executors, "run", run)
    (step,) = [step for step in gpu.steps("cuda") if step.name == "executors"]
    executors.main(tyro.cli(executors.Options, args=[*step.words[2:], "--out", str(tmp_path)]))
    table = pd.read_csv(tmp_path / "executors.csv").set_index("workers")["times one"]
    assert list(table.index) == [1, 2, 4]
    assert table[1] == 1
    assert table[4] == pytest.approx(table[2], rel=0.1)
    assert table[2] == pytest.approx(2, rel=0.1)
    assert all(words[words.index("--device") + 1] == "cuda" for words in asked)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_papers_setting_comes_first_and_every_sweep_is_understood(device):
    steps = gpu.steps(device, "folder:somewhere")
    assert [step.name for step in steps[:2]] == ["parity", "gradinversion-paper"]
    assert all(step.least <= step.most for step in steps)
    assert all(step.least + gpu.EXPORT < 60 * Options().minutes for step in steps)  # each may begin
    assert len({step.name for step in steps}) == len(steps)
    swept = {step.name: parse(step.words[2:]) for step in steps if step.words[1] == "dpbench.run"}
    assert {*gpu.SUITES, "gradinversion-ablation", "batch-size"} <= {*swept}
    first = swept["gradinversion-paper"]
    asked = first.attack, first.bn_stats, first.model, first.batch_size, first.image_size, first.data
    size = {"cuda": ((8,), 224), "cpu": ((1,), 64)}[device]
    assert asked == (("gradinversion",), ("exact",), ("resnet50",), *size, "folder:somewhere")
    if device == "cuda":
        assert first.terms == ()
        assert attacks.create("gradinversion").terms == "registered"  # which holds unless another is given
        assert all(options.image_size == 224 for options in swept.values())


def test_the_page_says_which_measurements_the_minutes_on_a_card_leave_out():
    page = Path(__file__).parents[1] / "docs" / "engine.md"
    listed = re.findall(r"^\| `python -m benchmarks\.(\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    run = {step.words[1].removeprefix("benchmarks.") for step in gpu.steps("cuda")}
    assert {*listed[: listed.index("gpu")]} - run == {"side_by_side"}
    assert "all of the above but `side_by_side`" in page.read_text(encoding="utf-8")


def test_a_sweep_runs_as_a_step_and_goes_on_where_it_ended(tmp_path, monkeypatch):
    words = ("-c", BARE_RUN, "--defense", "none", "--batch-size", "1", "--iterations", "2", "--quiet")
    words += ("--model", "lenet", "--victim", "untrained", "--device", "cpu")
    monkeypatch.setattr(gpu, "steps", lambda *_: [Step("sweep", words, 0, 300)])
    options = Options(out=tmp_path / "gpu")
    assert gpu.main(options) == 0
    cells = sorted((tmp_path / "gpu" / "sweep" / "cells").iterdir())
    written = [cell.stat().st_mtime_ns for cell in cells]
    for name in ("gpu.csv", "sweep/table.md"):
        (tmp_path / "gpu" / name).unlink()
    assert not (tmp_path / "gpu" / "sweep" / "reconstructions.png").exists()
    # out of time: of what is there tables and pictures are made all the same
    assert gpu.run(gpu.steps()[0], options, 0.5) == "out of time"
    assert "inverting-gradients" in (tmp_path / "gpu" / "sweep" / "table.md").read_text()
    assert (tmp_path / "gpu" / "sweep" / "reconstructions.png").exists()
    # in a process in which no part is registered yet
    (tmp_path / "gpu" / "sweep" / "table.md").unlink()
    line = "import pathlib, sys; from benchmarks import gpu; gpu.tables(pathlib.Path(sys.argv[1]))"
    line = f"{FIGURES_IN_ONE_FILE}\n{line}"
    subprocess.run([sys.executable, "-c", line, str(tmp_path / "gpu" / "sweep")], check=True)
    assert "over floor" in (tmp_path / "gpu" / "sweep" / "table.md").read_text()
    assert gpu.main(options) == 0
    assert [cell.stat().st_mtime_ns for cell in cells] == written


def test_steps_end_in_time_and_are_not_run_twice(tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    table = [
        Step("well", ("-c", f"open({str(marker)!r}, 'a').write('x')"), 0, 60),
        Step("broken", ("-c", "raise SystemExit(3)"), 0, 60),
        Step("endless", ("-c", "import time; time.sleep(600)"), 0, 1),
        Step("absent", ("-c", ""), 0, 60, needs="no_such_module"),
        Step("long", ("-c", ""), 3600, 7200),
    ]
    monkeypatch.setattr(gpu, "steps", lambda *_: table)
    options = Options(minutes=2, out=tmp_path / "gpu")
    for _ in range(2):
        assert gpu.main(options) == 1
        found = pd.read_csv(tmp_path / "gpu" / "gpu.csv").set_index("step")["status"]
        assert found["well"] == "ok"
        assert found["broken"].startswith("failed: exit status 3")
        assert found["endless"] == "out of time"
        assert found["absent"] == "skipped: no module no_such_module"
        assert found["long"] == "not begun"
    assert marker.read_text() == "x"


def test_nothing_is_measured_where_a_backend_is_wrong(tmp_path, monkeypatch, capsys):
    table = [Step("parity", ("-c", "raise SystemExit(1)"), 0, 60), Step("next", ("-c", ""), 0, 60)]
    monkeypatch.setattr(gpu, "steps", lambda *_: table)
    assert gpu.main(Options(out=tmp_path / "gpu")) == 1
    assert list(pd.read_csv(tmp_path / "gpu" / "gpu.csv")["step"]) == ["parity"]
    assert "nothing else is measured" in capsys.readouterr().out


def test_a_step_sees_its_own_variables(tmp_path):
    written = "import os, pathlib, sys; pathlib.Path(sys.argv[2], 'x').write_text(os.environ['OVERRIDE'])"
    step = Step("shown", ("-c", written), 0, 60, environment={"OVERRIDE": "0"})
    assert gpu.run(step, Options(out=tmp_path), 60) == "ok"
    assert (tmp_path / "shown" / "x").read_text() == "0"


def test_parity_names_the_backend_that_fell_back(tmp_path, monkeypatch, capsys):
    case = ("lenet:32:1",)
    monkeypatch.setattr("torch._inductor.compile", lambda traced, _: traced)
    assert parity.main(engine.Options(case, device="cpu", out=tmp_path)) == 0
    monkeypatch.setattr("torch._inductor.compile", lambda traced, _: 1 / 0)
    forget()
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        assert parity.main(engine.Options(case, device="cpu", out=tmp_path)) == 1
    assert "compiled on lenet 32 px B=1: eager" in capsys.readouterr().out
    assert list(pd.read_csv(tmp_path / "parity.csv")["right"]) == ["yes", "NO"]


def test_cells_side_by_side_have_the_gradient_of_one_alone():
    found = scene(Case("lenet", 32, 2), "cpu")
    alone = question(found)
    one = alone(found.start, found.labels, list(found.gradients))
    problem = found.problem()
    problem.regularisers = torch.nn.ModuleList()
    z = found.start.clone().requires_grad_()
    mean, std = problem.mean, problem.std
    _, _, (expected,) = problem.gradient([z], found.labels)
    images = z.detach() * std + mean
    torch.testing.assert_close(alone(images, found.labels, list(found.gradients)) * std, expected)
    both = torch.func.vmap(alone)(
        torch.stack([images, found.start]),
        torch.stack([found.labels] * 2),
        [torch.stack([g, g]) for g in found.gradients],
    )
    torch.testing.assert_close(both[1], one, rtol=1e-3, atol=1e-6)
