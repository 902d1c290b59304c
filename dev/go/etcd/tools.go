//go:build tools

// Package tools pins the commands of the local cluster; nothing imports it.
package tools

import _ "go.etcd.io/etcd/server/v3"
