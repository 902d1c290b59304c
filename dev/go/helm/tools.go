//go:build tools

// Package tools names the command of helm that the local cluster runs,
// so that go.mod and go.sum pin everything it is built from.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
