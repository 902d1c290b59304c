"""The node's network namespace: the host's stays as it was, and no packet leaves the machine."""

from pathlib import Path

from dev.cluster.layout import HOST_IP, HOST_LINK, NETWORK_NAMESPACE, NODE_IP, NODE_LINK
from dev.console import run, step, succeeds

_PATH = Path("/run/netns") / NETWORK_NAMESPACE
# The last rule that is made: where it is, everything is.
_LAST_RULE = "FORWARD -o eth0 -j REJECT"


def enter_namespace() -> list[str]:
    """Command prefix; nsenter because `ip netns exec` remounts /sys and hides the cgroups from runc."""
    return ["nsenter", f"--net={_PATH}", "--"]


def namespace_is_complete() -> bool:
    """Whether the namespace is there with all its rules; one left half made would leak packets."""
    return succeeds([*enter_namespace(), "iptables", "-C", *_LAST_RULE.split()])


def ensure_namespace() -> None:
    """Makes the namespace, its link to the host, and the rules that keep everything in."""
    if namespace_is_complete():
        return
    remove_namespace()
    with step(f"network namespace {NETWORK_NAMESPACE}"):
        run(["ip", "netns", "add", NETWORK_NAMESPACE])
        run(["ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", NODE_LINK])
        run(["ip", "link", "set", NODE_LINK, "netns", NETWORK_NAMESPACE, "name", "eth0"])
        run(["ip", "address", "add", f"{HOST_IP}/30", "dev", HOST_LINK])
        run(["ip", "link", "set", HOST_LINK, "up"])
        for command in _inside():
            run([*enter_namespace(), *command.split()])


def remove_namespace() -> None:
    """Removes the link and the namespace; harmless where they are not."""
    if succeeds(["ip", "link", "show", HOST_LINK]):
        run(["ip", "link", "delete", HOST_LINK])
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
        f"iptables -A {_LAST_RULE}",
    ]
