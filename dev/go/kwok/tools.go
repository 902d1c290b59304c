//go:build tools

// Package tools names the command of kwok, which plays the nodes and pods of a large cluster,
// so that go.mod and go.sum pin everything it is built from.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
