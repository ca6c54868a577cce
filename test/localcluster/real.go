// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"everynode.dev/everynode/pkg/image"
	"everynode.dev/everynode/test/localcluster/machine"
)

// The programs of a real node, which are looked for in the folder node of
// Options.BinDir.
const (
	Containerd = "containerd"
	Kubelet    = "kubelet"
	KubeProxy  = "kube-proxy"
)

// realPrograms are all the programs of a real node: those above and what they run.
var realPrograms = []string{Containerd, "containerd-shim-runc-v2", "ctr", "runc", "ptp", "host-local", "portmap", "pause", Kubelet, KubeProxy}

// The network of the machines. It is the same in every cluster: nobody else sees it.
const (
	controlPlane        = "control-plane"
	controlPlaneAddress = "10.99.0.1"
	podNetwork          = "10.244.0.0/16"
)

// MaxRealNodes is how many real nodes there are addresses for.
const MaxRealNodes = 100

// machines are those of a cluster with real nodes.
type machines struct {
	rack         *machine.Rack
	controlPlane *machine.Machine
	nodes        []*realNode
}

// bootControlPlane makes what real nodes need, and boots the control plane's
// machine: the API server has to be on the network of its nodes and Services.
func (c *Cluster) bootControlPlane() (err error) {
	if len(c.containerdSocket(c.machines.nodes[len(c.machines.nodes)-1])) > maxSocket {
		return fmt.Errorf("the folder's name is too long for a socket in it: %s", c.dir)
	}
	pause := image.Image{Reference: pauseImage, Programs: []string{c.nodeBinary("pause")}, User: "65535:65535"}
	if err := pause.WriteArchive(c.path("pause.tar")); err != nil {
		return err
	}
	if err := c.ca.issueClient("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"); err != nil {
		return err
	}
	if _, err := c.ca.issueKubeconfig(KubeProxy, c.machineServer(), "system:kube-proxy"); err != nil {
		return err
	}
	if c.machines.rack, err = machine.NewRack(c.self); err != nil {
		return err
	}
	options := c.machineOptions(controlPlane, controlPlaneAddress)
	for _, port := range []*port{c.apiServerPort, c.schedulerPort, c.webhookPort} {
		listener, err := port.listen()
		if err != nil {
			return err
		}
		options.Listeners = append(options.Listeners, listener)
	}
	c.machines.controlPlane, err = c.bootMachine(options)
	for _, listener := range options.Listeners {
		err = errors.Join(err, listener.Close())
	}
	return err
}

// machineServer is the address of the API server for other machines.
func (c *Cluster) machineServer() string {
	return fmt.Sprintf("https://%s:%d", controlPlaneAddress, c.apiServerPort.number)
}

func (c *Cluster) machineOptions(name, address string) machine.Options {
	options := machine.Options{
		Name:     name,
		Dir:      c.path(name),
		Shared:   []string{c.dir},
		Programs: []string{c.options.BinDir},
		Address:  address + "/24",
		Routes:   make(map[string]string),
	}
	for _, node := range c.machines.nodes {
		if node.name != name {
			options.Routes[node.podNetwork] = node.address
		}
	}
	return options
}

// bootMachine boots a machine whose first process is one of the cluster's.
func (c *Cluster) bootMachine(options machine.Options) (*machine.Machine, error) {
	if err := os.MkdirAll(options.Dir, 0o755); err != nil { //nolint:gosec // below it are files of pods that are not root
		return nil, err
	}
	var first *Process
	m, err := c.machines.rack.Boot(options, func(command *exec.Cmd) (pid int, err error) {
		if first, err = c.launch(options.Name+"/"+machine.Component, command, startOnLivingThread); err != nil {
			return 0, err
		}
		return first.Pid(), nil
	})
	if err != nil && first != nil {
		first.Kill()
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(first.tail(1)))
	}
	return m, err
}

// apiServerArgs are further flags of the API server where nodes are real: they
// reach it from other machines, and it reaches them.
func (m *machines) apiServerArgs(ca *authority) []string {
	if m == nil {
		return nil
	}
	return []string{
		"--bind-address=0.0.0.0",
		"--advertise-address=" + controlPlaneAddress,
		"--kubelet-client-certificate=" + ca.path("kubelet-client.crt"),
		"--kubelet-client-key=" + ca.path("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
	}
}

// CutPower ends everything on a real node at once.
func (c *Cluster) CutPower(ctx context.Context, name string) error {
	node, err := c.realNode(name)
	if err != nil {
		return err
	}
	if node.machine == nil {
		return fmt.Errorf("node %s is off", name)
	}
	// All others in the machine end with its first process.
	c.Process(name + "/" + machine.Component).Kill()
	c.forget(name + "/")
	m := node.machine
	node.machine = nil
	return m.Off(ctx)
}

// BootNode starts a real node again whose power was cut, and waits until it is ready.
func (c *Cluster) BootNode(ctx context.Context, name string) error {
	node, err := c.realNode(name)
	if err != nil {
		return err
	}
	if node.machine != nil {
		return fmt.Errorf("node %s is running", name)
	}
	return c.startNode(ctx, node)
}

// removeMachines removes what is left of the machines, whose processes have ended.
func (c *Cluster) removeMachines() {
	if c.machines == nil || c.machines.rack == nil {
		return
	}
	if err := c.machines.rack.Close(); err != nil {
		// Whoever stops a cluster has nothing else to do about it.
		fmt.Fprintln(os.Stderr, err)
	}
	c.machines.rack = nil
}

func (c *Cluster) realNode(name string) (*realNode, error) {
	if c.machines != nil {
		for _, node := range c.machines.nodes {
			if node.name == name {
				return node, nil
			}
		}
	}
	return nil, fmt.Errorf("no real node is called %q", name)
}

// forget waits until the processes whose name begins with prefix have ended, and
// forgets them.
func (c *Cluster) forget(prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processes = slices.DeleteFunc(c.processes, func(p *Process) bool {
		if !strings.HasPrefix(p.Name, prefix) {
			return false
		}
		<-p.exited
		return true
	})
}

// nodeBinary is the path of a program of real nodes.
func (c *Cluster) nodeBinary(name string) string {
	return filepath.Join(c.options.BinDir, "node", name)
}
