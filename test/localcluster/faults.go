// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
)

// StartAgain starts a program as the process named before was started, with more args,
// as a process of that name: one that has ended, or one more. Of a flag that is given
// twice the last counts. It does not wait until the program is ready. It is not for
// clusters with real nodes.
func (c *Cluster) StartAgain(before, name string, args ...string) (*Process, error) {
	process := c.Process(before)
	if process == nil {
		return nil, fmt.Errorf("starting %s: %s was never started", name, before)
	}
	all := slices.Concat(process.cmd.Args[1:], args)
	return c.launch(name, exec.Command(process.cmd.Path, all...), startOnLivingThread) //nolint:noctx // Stop ends it
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.exited }

// Reroute has a process find the API server at another port of this machine, once it is
// started again. It is for those with the flag --kubeconfig.
func (c *Cluster) Reroute(name string, port int) error {
	for _, arg := range c.Process(name).cmd.Args {
		file, ok := strings.CutPrefix(arg, "--kubeconfig=")
		if !ok {
			continue
		}
		config, err := clientcmd.LoadFromFile(file)
		if err != nil {
			return err
		}
		for _, cluster := range config.Clusters {
			cluster.Server = fmt.Sprintf("https://127.0.0.1:%d", port)
		}
		return clientcmd.WriteToFile(*config, file)
	}
	return fmt.Errorf("%s has no flag --kubeconfig", name)
}
