// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import "os"

// Component is the first argument of a program that has to call Main.
const Component = "machine"

// Options describe a machine.
type Options struct {
	// Name is its host name. A rack has it once.
	Name string
	// Dir is its disk: a folder of the host that it sees at the same path. What it
	// writes to /var and /run is in the folders of these names. /run is emptied when
	// the machine boots.
	Dir string
	// Shared are further folders of the host that it sees at their own paths and may
	// write to, Programs those that it may only read. /usr and /etc, and what belongs
	// to them, are always among the latter; nothing else of the host's files is seen.
	Shared, Programs []string
	// Address is its address with the length of its network's prefix ("10.99.0.1/24").
	// Everything outside of the network is looked for in it as well.
	Address string
	// Routes are the addresses by network ("10.244.1.0/24") behind which the network is.
	Routes map[string]string
	// Listeners are TCP sockets of the host that listen. Their connections go to
	// the same port of the machine's loopback address.
	Listeners []*os.File `json:"-"`
}
