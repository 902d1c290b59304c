//go:build tools

// Package tools names the command of coredns that the local cluster runs,
// so that go.mod and go.sum pin everything it is built from.
package tools

import _ "github.com/coredns/coredns"
