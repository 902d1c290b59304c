"""A real Kubernetes on this machine: a control plane and, as root, a node in its own network namespace."""
