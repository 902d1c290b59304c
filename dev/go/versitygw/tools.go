//go:build tools

// Package tools names the command of versitygw, the S3 server that the tests load models from,
// so that go.mod and go.sum pin everything it is built from.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
