"""The control plane of this machine, started, broken, mended and stopped for real."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dev.cluster.processes import Processes
from dev.paths import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]  # a first build of Kubernetes takes minutes


def cluster(command, state, *options, check=True):
    words = [sys.executable, "-m", "dev.cluster", command, "--state-dir", str(state), *options]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def state(tmp_path):
    yield tmp_path / "state"
    cluster("down", tmp_path / "state")


def up(state, **options):
    return cluster("up", state, "--mode", "control-plane", **options)


def pids(state):
    processes = Processes(state)
    return {name: found.pid for name in processes.names() if (found := processes.identity(name))}


def namespaces(state):
    facts = json.loads((state / "cluster.json").read_text())
    command = [facts["kubectl"], f"--kubeconfig={facts['kubeconfig']}", "get", "namespaces", "-o", "name"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_control_plane_lives_through_a_crash_and_leaves_nothing_behind(state):
    up(state)
    assert "namespace/kube-system" in namespaces(state)
    assert cluster("status", state).returncode == 0
    before = pids(state)

    assert "already" in up(state).stdout
    assert pids(state) == before

    os.kill(before["kube-apiserver"], signal.SIGKILL)
    assert cluster("status", state, check=False).returncode == 1
    up(state)
    assert "namespace/kube-system" in namespaces(state)
    assert pids(state)["etcd"] == before["etcd"]

    processes = Processes(state)
    running = [processes.identity(name) for name in processes.names()]
    cluster("down", state)
    assert [process for process in running if process.is_alive] == []
    assert sorted(path.name for path in state.iterdir()) == [".lock", "logs"]
    assert "nothing is up" in cluster("down", state).stdout


def test_what_a_killed_up_left_is_mended_by_the_next(state):
    words = [sys.executable, "-m", "dev.cluster", "up", "--mode", "control-plane", "--state-dir", str(state)]
    starting = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 1200
    while "kube-apiserver" not in pids(state):
        assert time.monotonic() < deadline, "the API server was never started"
        time.sleep(0.01)
    starting.kill()
    starting.wait()
    half = pids(state)
    up(state)
    assert pids(state)["etcd"] == half["etcd"]
    assert "namespace/kube-system" in namespaces(state)


def test_two_commands_do_not_work_on_one_state_folder_at_once(state):
    first = subprocess.Popen(
        [sys.executable, "-m", "dev.cluster", "up", "--mode", "control-plane", "--state-dir", str(state)],
        cwd=ROOT, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not (state / "pids").exists() and first.poll() is None:
        time.sleep(0.01)
    second = up(state, check=False)
    assert first.wait() == 0
    assert second.returncode == 1
    assert "another command" in second.stderr


def test_two_control_planes_are_up_side_by_side(state, tmp_path):
    other = tmp_path / "other"
    try:
        up(state)
        up(other)
        assert "namespace/kube-system" in namespaces(state)
        assert "namespace/kube-system" in namespaces(other)
    finally:
        cluster("down", other)
