// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"everynode.dev/everynode/test/localcluster/machine"
)

// pauseImage is the image of every pod's first container.
const pauseImage = "localhost/pause:everynode"

// realNode is a machine with a kubelet.
type realNode struct {
	name, address, podNetwork string
	labels                    map[string]string
	// machine is nil while the node is off.
	machine   *machine.Machine
	hasImages bool
}

// realNodes returns n nodes, named and labelled as Nodes does it.
func realNodes(n int) []*realNode {
	nodes := make([]*realNode, n)
	for i, node := range Nodes(1, n) {
		nodes[i] = &realNode{
			name:       node.Name,
			labels:     node.Labels,
			address:    fmt.Sprintf("10.99.0.%d", 11+i),
			podNetwork: fmt.Sprintf("10.244.%d.0/24", 1+i),
		}
	}
	return nodes
}

// startNode boots a node's machine, and waits until the node is ready.
func (c *Cluster) startNode(ctx context.Context, node *realNode) error {
	var err error
	if node.machine, err = c.bootMachine(c.machineOptions(node.name, node.address)); err != nil {
		return err
	}
	if err := c.configureNode(node); err != nil {
		return err
	}
	if err := c.startContainerd(ctx, node); err != nil {
		return err
	}
	if err := c.importImages(ctx, node); err != nil {
		return err
	}
	if err := c.startKubelet(ctx, node); err != nil {
		return err
	}
	// It asks for its node, and ends if that appears only after a while.
	return c.startKubeProxy(node.machine, node.name, node.name)
}

// configurations are the files that nodes are configured by.
//
//go:embed real
var configurations embed.FS

// configure writes a configuration with the given values to a file.
func configure(path, name string, values any) error {
	content, err := template.ParseFS(configurations, "real/"+name)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := content.Execute(&out, values); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o600)
}

func (c *Cluster) configureNode(node *realNode) error {
	dir := c.path(node.name)
	if err := os.MkdirAll(filepath.Join(dir, "cni"), 0o700); err != nil {
		return err
	}
	values := map[string]string{
		"Dir":         dir,
		"Programs":    c.nodeBinary(""),
		"Snapshotter": "native",
		"PauseImage":  pauseImage,
		"PodNetwork":  node.podNetwork,
		"CA":          c.ca.path("ca.crt"),
	}
	if node.machine.Overlay {
		values["Snapshotter"] = "overlayfs"
	}
	return errors.Join(
		configure(filepath.Join(dir, "containerd.toml"), "containerd.toml", values),
		configure(filepath.Join(dir, "kubelet.yaml"), "kubelet.yaml", values),
		configure(filepath.Join(dir, "cni", "pods.conflist"), "cni.conflist", values),
		// Names can be looked up by those who bring a server at the address in kubelet.yaml.
		os.WriteFile(filepath.Join(dir, "resolv.conf"), nil, 0o644), //nolint:gosec // pods that are not root read it
	)
}

func (c *Cluster) startContainerd(ctx context.Context, node *realNode) error {
	p, err := c.startOn(node.machine, node.name, Containerd, "--config="+c.path(node.name+"/containerd.toml"))
	if err != nil {
		return err
	}
	return p.waitReady(ctx, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.containerdSocket(node))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// containerdSocket is where the host finds the socket that is in a node's /run.
func (c *Cluster) containerdSocket(node *realNode) string {
	return c.path(node.name + "/run/containerd/containerd.sock")
}

// importImages gives a node its images, unless its disk has them already: nodes
// have no registry.
func (c *Cluster) importImages(ctx context.Context, node *realNode) error {
	if node.hasImages {
		return nil
	}
	for _, path := range append([]string{c.path("pause.tar")}, c.options.Images...) {
		command := exec.CommandContext(ctx, c.nodeBinary("ctr"),
			"--address="+c.containerdSocket(node), "--namespace=k8s.io", "images", "import", path)
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("importing image %s on %s: %w: %s", path, node.name, err, bytes.TrimSpace(output))
		}
	}
	node.hasImages = true
	return nil
}

func (c *Cluster) startKubelet(ctx context.Context, node *realNode) error {
	kubeconfig, err := c.ca.issueKubeconfig(node.name, c.machineServer(), "system:node:"+node.name, "system:nodes")
	if err != nil {
		return err
	}
	p, err := c.startOn(node.machine, node.name, Kubelet,
		"--config="+c.path(node.name+"/kubelet.yaml"),
		"--kubeconfig="+kubeconfig,
		"--hostname-override="+node.name,
		"--node-ip="+node.address,
		"--node-labels="+labels.FormatLabels(node.labels),
		"--v=2",
	)
	if err != nil {
		return err
	}
	began := metav1.NewTime(time.Now().Truncate(time.Second))
	return p.waitReady(ctx, func(ctx context.Context) error {
		object, err := c.Client.CoreV1().Nodes().Get(ctx, node.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		// What the kubelet said before a reboot does not count.
		if !isReady(object) || !heard(object, began) {
			return fmt.Errorf("node %s is not ready", node.name)
		}
		return nil
	})
}

// heard says whether a node's kubelet has reported since a time.
func heard(node *corev1.Node, since metav1.Time) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(condition corev1.NodeCondition) bool {
		return condition.Type == corev1.NodeReady && !condition.LastHeartbeatTime.Before(&since)
	})
}

// startKubeProxy starts kube-proxy on a machine, in the name of a node.
func (c *Cluster) startKubeProxy(m *machine.Machine, name, node string) error {
	config := c.path(name + "/kube-proxy.yaml")
	err := configure(config, "kube-proxy.yaml", map[string]string{
		"Node": node, "PodNetwork": podNetwork, "Kubeconfig": c.ca.path(KubeProxy + ".kubeconfig"),
	})
	if err != nil {
		return err
	}
	_, err = c.startOn(m, name, KubeProxy, "--config="+config, "--v=2")
	return err
}

// startOn starts a program of a node on a machine, with its further flags.
func (c *Cluster) startOn(m *machine.Machine, name, program string, args ...string) (*Process, error) {
	command := m.Command(c.nodeBinary(program), append(args, c.options.Args[program]...)...)
	command.Env = append(os.Environ(), "PATH="+c.nodeBinary("")+":/usr/sbin:/usr/bin:/sbin:/bin")
	return c.launch(name+"/"+program, command, m.Start)
}
