"""The node's own network namespace: nothing of it stays in the host's or leaves the machine."""

from pathlib import Path

from dev.cluster.layout import HOST_IP, NETWORK_NAMESPACE, NODE_IP
from dev.console import run, step, succeeds

_HOST_LINK, _NODE_LINK = "sluice-host", "sluice-node"
_PATH = Path("/run/netns") / NETWORK_NAMESPACE


def enter_namespace() -> list[str]:
    """Command prefix; nsenter because `ip netns exec` remounts /sys and hides the cgroups from runc."""
    return ["nsenter", f"--net={_PATH}", "--"]


def namespace_exists() -> bool:
    """Whether the namespace is there and usable."""
    return succeeds([*enter_namespace(), "ip", "link", "show", "eth0"])


def ensure_namespace() -> None:
    """Makes the namespace, its link to the host, and the rules that keep everything in."""
    if namespace_exists():
        return
    remove_namespace()
    with step(f"network namespace {NETWORK_NAMESPACE}"):
        run(["ip", "netns", "add", NETWORK_NAMESPACE])
        run(["ip", "link", "add", _HOST_LINK, "type", "veth", "peer", "name", _NODE_LINK])
        run(["ip", "link", "set", _NODE_LINK, "netns", NETWORK_NAMESPACE, "name", "eth0"])
        run(["ip", "address", "add", f"{HOST_IP}/30", "dev", _HOST_LINK])
        run(["ip", "link", "set", _HOST_LINK, "up"])
        for command in _inside():
            run([*enter_namespace(), *command.split()])


def remove_namespace() -> None:
    """Removes the link and the namespace; harmless where they are not."""
    if succeeds(["ip", "link", "show", _HOST_LINK]):
        run(["ip", "link", "delete", _HOST_LINK])
    if _PATH.exists():
        run(["ip", "netns", "delete", NETWORK_NAMESPACE])


def _inside() -> list[str]:
    return [
        "ip link set lo up",
        f"ip address add {NODE_IP}/30 dev eth0",
        "ip link set eth0 up",
        # A route must exist for NAT to see the Services' addresses.
        f"ip route add default via {HOST_IP}",
        "sysctl -qw net.ipv4.ip_forward=1",
        f"iptables -A OUTPUT -o eth0 ! -d {HOST_IP} -m conntrack ! --ctstate DNAT -j REJECT",
        "iptables -A FORWARD -o eth0 -j REJECT",
    ]
