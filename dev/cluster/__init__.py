"""A real Kubernetes on this machine: control plane and, as root, a node, in a network namespace of its own."""
