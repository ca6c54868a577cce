// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package machine makes machines out of Linux namespaces: each has processes,
// mounts, a host name, a network interface and control groups of its own, shares
// the kernel and the programs of the host, and runs what it is told to. It has no
// image, no engine and no daemon behind it.
//
// The machines of a Rack are on one network, which is in a namespace of its own as
// well: nothing is changed in the host's network, mounts or packet filter. When a
// machine's first process is killed, the kernel ends everything in it, as a power
// cut does, and that process is killed when the one that made the rack has gone.
// Control groups are the one thing that the kernel does not clean up by itself;
// a process that outlives the rack by a moment removes them.
package machine
