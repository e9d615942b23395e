"""What is packed for a machine without a network."""

import pytest

from benchmarks import pack
from benchmarks.pack import Options, closure, missing
from dpbench.protocol import InputError


def test_requirements_are_followed_to_the_end_but_not_beyond_what_is_there():
    found = closure(("scikit-image",), "3.12")
    assert {"scikit-image", "numpy", "networkx", "pillow"} <= set(found)
    assert "numpy" not in closure(("scikit-image",), "3.12", frozenset({"numpy"}))
    assert "mpmath" in closure(("torch",), "3.12")  # sympy requires it
    assert "mpmath" not in closure(("torch",), "3.12", frozenset({"sympy"}))


def test_what_the_other_machine_has_stays_here(tmp_path):
    plain = missing(Options(tmp_path))
    assert {"opacus", "dp-accounting", "tyro", "itables"} <= set(plain)
    assert not {"torch", "numpy", "sympy", "dpbench", "pytest"} & set(plain)
    listed = tmp_path / "there.txt"
    listed.write_text("Opacus==1.6.0\ndp_accounting\n")
    assert set(plain) - set(missing(Options(tmp_path, there=listed))) >= {"opacus", "dp-accounting"}
    with pytest.raises(InputError, match="Cannot read"):
        missing(Options(tmp_path, there=tmp_path / "none.txt"))


def test_a_folder_is_packed(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(pack, "_pip", lambda *words: asked.append(words))
    monkeypatch.setattr(pack, "missing", lambda options: {"opacus": "1.6.0"})
    monkeypatch.setattr(
        pack,
        "export",
        lambda name, folder, half: (folder.mkdir(parents=True), (folder / name).write_bytes(b"x" * 2**20)),
    )
    assert pack.main(Options(tmp_path / "packed", assets=("lpips-alex",))) == 0
    fetched, built = asked
    assert fetched[0] == "download"
    assert fetched[-1] == "opacus==1.6.0"
    assert "3.12" in fetched
    assert built[:2] == ("wheel", "--no-deps")
    assert "assets: 1.0 MiB" in capsys.readouterr().out


def test_a_wheel_that_does_not_exist_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pack, "missing", lambda options: {"no-such-package": "1"})
    monkeypatch.setattr(pack, "GLIBC", ())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert pack.main(Options(tmp_path, assets=())) == 2
    assert "pip download failed: ERROR: No matching distribution" in capsys.readouterr().err
