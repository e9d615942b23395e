"""A Ray cluster of two nodes on this machine gives what one process gives."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from dpbench.protocol import InputError
from dpbench.run import main
from dpbench.sweep.executors import create
from tests.helpers.kills import with_kills
from tests.helpers.sixty import SIXTY, check, table_of

pytestmark = pytest.mark.usefixtures("bare_exports")


@pytest.fixture(scope="module")
def cluster(instant):
    ray = pytest.importorskip("ray", reason="the cluster extra is not installed")
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_two_nodes_give_the_same_table_as_one_process(cluster, undisturbed, tmp_path):
    folder = tmp_path / "run"
    words = [*SIXTY, "--executor", "ray", "--ray-address", cluster.address, "--quiet"]
    assert main([*words, "--out", str(folder)]) == 0
    pd.testing.assert_frame_equal(table_of(folder), table_of(undisturbed))
    check(folder, undisturbed)


def test_a_killed_raylet_ends_the_run_and_no_cell_fails(cluster, tmp_path, monkeypatch, capfd):
    import ray

    def died(_):
        raise ray.exceptions.LocalRayletDiedError

    folder = tmp_path / "run"
    words = [*SIXTY, "--executor", "ray", "--ray-address", cluster.address, "--quiet", "--out", str(folder)]
    with monkeypatch.context() as patch:
        patch.setattr(ray, "get", died)
        assert main(words) == 2
    assert "raylet) was killed" in capfd.readouterr().err
    assert not list(folder.glob("failed/*"))
    assert not (folder / "running").exists()


@pytest.mark.slow
def test_killed_processes_of_the_cluster(cluster, undisturbed, tmp_path):
    words = [*SIXTY, "--executor", "ray", "--ray-address", cluster.address]
    assert with_kills(words, tmp_path / "run", moments=20, seed=20) == 20
    check(tmp_path / "run", undisturbed)


def test_no_cluster_is_one_sentence():
    ray = pytest.importorskip("ray", reason="the cluster extra is not installed")
    ray.shutdown()
    with pytest.raises(InputError, match="ray start --head"):
        create("ray", "cpu", ray_address="127.0.0.1:1")


def test_without_ray_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'dpbench\[cluster\]'"):
        create("ray", "cpu")
