"""Tests, in the folders of what they test; `e2e` needs the local cluster, `cluster` marks need a control plane."""
