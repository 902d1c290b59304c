"""Whether a cluster is well, and what a person needs in order to use it."""

from pathlib import Path

from dev.cluster import facts, node
from dev.cluster.layout import Layout, Mode
from dev.cluster.processes import Processes
from dev.console import succeeds


def is_healthy(layout: Layout) -> bool:
    """Whether every daemon runs, the API server says ready, and the node is Ready."""
    known = facts.read(layout)
    if known is None:
        return False
    processes = Processes(layout.state)
    kubectl = [str(known["kubectl"]), f"--kubeconfig={layout.kubeconfig}", "--request-timeout=5s"]
    daemons = known["daemons"]
    return (
        isinstance(daemons, list)
        and all(processes.identity(name) for name in daemons)
        and succeeds([*kubectl, "get", "--raw", "/readyz"])
        and (layout.mode is Mode.CONTROL_PLANE or node.is_node_ready(kubectl))
    )


def show(layout: Layout) -> bool:
    """Prints a table of the daemons and how to use the cluster; True when all is well."""
    processes = Processes(layout.state)
    for name in processes.names():
        running = processes.identity(name)
        state = f"running, pid {running.pid}" if running else "NOT RUNNING"
        print(f"  {name:24} {state:22} {processes.log(name)}")
    well = is_healthy(layout)
    known = facts.read(layout)
    if known is None or not well:
        mend = f"python3 -m dev.cluster up --state-dir {layout.state}"
        print(f"  the cluster in {layout.state} is not up; start or mend it: {mend}")
        return False
    node_state = "" if layout.mode is Mode.CONTROL_PLANE else ", the node is Ready"
    print(f"  the API server at {layout.api_url} is ready{node_state}")
    if known["registry"]:
        print(f"  push images: buildah push --tls-verify=false IMAGE docker://{known['registry']}/NAME:TAG")
        print(f"  and in pods: {known['image_prefix']}/NAME:TAG")
    folders = dict.fromkeys(str(Path(str(known[tool])).parent) for tool in ("kubectl", "helm") if known[tool])
    print(f"  export KUBECONFIG={layout.kubeconfig} PATH={':'.join(folders)}:$PATH")
    return True
