"""What the daemons are told."""

import re
import tomllib

import pytest

from dev.cluster import binaries, containers, node, versions
from dev.cluster.certificates import subject_alternative_names
from dev.cluster.controlplane import control_plane
from dev.cluster.files import write
from dev.cluster.layout import Layout, Mode, Ports, layout, recorded_mode
from dev.paths import ROOT

PROGRAMS = versions.CONTROL_PLANE + versions.NODE


@pytest.fixture
def full(tmp_path):
    return Layout(Mode.FULL, tmp_path, Ports())


def test_the_api_server_is_known_by_its_address_and_by_the_names_that_pods_use():
    names = subject_alternative_names("10.201.0.2").split(",")
    assert {
        "IP:10.201.0.2",
        "IP:127.0.0.1",
        "IP:10.96.0.1",
        "DNS:kubernetes.default.svc",
        "DNS:localhost",
    } <= set(names)


def test_an_address_is_named_once():
    names = subject_alternative_names("127.0.0.1").split(",")
    assert len(names) == len(set(names))


def test_a_control_plane_keeps_its_ports_and_they_differ(tmp_path):
    first = layout(Mode.CONTROL_PLANE, tmp_path)
    assert layout(Mode.CONTROL_PLANE, tmp_path) == first
    assert len({getattr(first.ports, name) for name in Ports.__slots__}) == len(Ports.__slots__)


def test_the_mode_need_not_be_said_again(tmp_path):
    assert recorded_mode(tmp_path) is Mode.FULL
    layout(Mode.CONTROL_PLANE, tmp_path)
    assert recorded_mode(tmp_path) is Mode.CONTROL_PLANE


def test_only_a_full_cluster_announces_an_address_that_pods_can_reach(full):
    def flags(place):
        daemons = control_plane(place, {program.name: program.name for program in PROGRAMS}, [])
        return next(daemon.command for daemon in daemons if daemon.name == "kube-apiserver")

    assert "--advertise-address=10.201.0.2" in flags(full)
    assert "--endpoint-reconciler-type=none" not in flags(full)
    assert "--endpoint-reconciler-type=none" in flags(Layout(Mode.CONTROL_PLANE, full.state, Ports()))


def test_containerd_keeps_to_our_folders(full, monkeypatch):
    monkeypatch.setattr(containers, "run", lambda command: f"{command[0]} example/{command[0]} 1.6.20~ds1 1.6.20~ds1-1")
    config = tomllib.loads(containers._containerd_config(full))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert config["root"].endswith("/containerd-1.6")
    assert config["state"] == "/run/sluice/containerd"
    assert cri["netns_mounts_under_state_dir"] is True
    assert cri["restrict_oom_score_adj"] is True
    assert cri["containerd"]["runtimes"]["runc"]["options"]["Root"] == "/run/sluice/runc"


def test_the_kubelet_keeps_to_our_folders_and_cgroup(full):
    config = node._kubelet_config(full)
    assert config["cgroupRoot"] == "/sluice"
    assert config["podLogsDir"] == f"{full.state}/logs/pods"


def test_a_file_is_replaced_only_when_it_changes(tmp_path):
    path = tmp_path / "folder" / "file"
    write(path, "one", mode=0o600)
    before = path.stat()
    write(path, "one")
    assert path.stat().st_ino == before.st_ino
    write(path, "two")
    assert (path.read_text(), before.st_mode & 0o777) == ("two", 0o600)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_the_go_module_pins_the_version_that_is_promised(program):
    if program.module == "pause":
        return
    module = (ROOT / "dev" / "go" / program.module / "go.mod").read_text()
    longest = max(re.findall(r"^require (\S+) (\S+)$", module, re.MULTILINE), key=lambda found: len(found[0]))
    assert program.package.startswith(longest[0])
    assert program.version == longest[1]


def test_the_cache_key_is_the_version_and_changes_with_whatever_the_build_depends_on(monkeypatch, tmp_path):
    program = versions.Program("one", "v1", ".", "one")
    folder = tmp_path / "dev" / "go" / "one"
    folder.mkdir(parents=True)
    (folder / "go.sum").write_text("a")
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    first = program.key
    assert first.startswith("v1-")
    assert versions.Program("one", "v1", ".", "one", ldflags="-s").key != first
    (folder / "go.sum").write_text("b")
    assert program.key != first


def test_a_program_of_the_users_own_folder_is_taken_first(monkeypatch, tmp_path):
    etcd = versions.CONTROL_PLANE[0]
    monkeypatch.setenv("KUBE_BIN_DIR", str(tmp_path))
    assert binaries.find(etcd).parent != tmp_path
    (tmp_path / "etcd").touch()
    assert binaries.find(etcd) == tmp_path / "etcd"
