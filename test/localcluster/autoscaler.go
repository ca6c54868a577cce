// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
)

// Karpenter is the name of the autoscaler, and of its program: Karpenter with the provider that makes Node objects,
// whose kubelets kwok plays as everybody's (https://github.com/kubernetes-sigs/karpenter/tree/main/kwok).
const Karpenter = "karpenter"

// karpenterCRDs is the file with its CRDs, beside its program.
const karpenterCRDs = "karpenter-crds.yaml"

// nodePool is what it may buy.
//
//go:embed karpenter.yaml
var nodePool []byte

// checkAutoscaler finds what the autoscaler needs.
func (c *Cluster) checkAutoscaler() error {
	switch {
	case c.options.Autoscaler == "":
		return nil
	case c.options.Autoscaler != Karpenter:
		return fmt.Errorf("the autoscaler is %q, must be %s", c.options.Autoscaler, Karpenter)
	case c.options.RealNodes > 0:
		return fmt.Errorf("%s makes nodes that kwok plays, which does not run beside real nodes", Karpenter)
	}
	for _, file := range []string{Karpenter, karpenterCRDs} {
		if _, err := os.Stat(c.binary(file)); err != nil {
			return fmt.Errorf("%w (run make build-karpenter)", err)
		}
	}
	return nil
}

// startAutoscaler starts Karpenter, and waits until it has accepted its NodePool.
func (c *Cluster) startAutoscaler(ctx context.Context) error {
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", c.binary(karpenterCRDs)},
		{"wait", "--for=condition=Established", "--timeout=1m", "-f", c.binary(karpenterCRDs)},
	} {
		if _, err := c.Kubectl(ctx, nil, args...); err != nil {
			return err
		}
	}
	if _, err := c.Kubectl(ctx, nodePool, "apply", "-f", "-"); err != nil {
		return err
	}
	kubeconfig, err := c.ca.issueKubeconfig(Karpenter, c.server(), Karpenter, "system:masters")
	if err != nil {
		return err
	}
	// Its ports are any free ones: no test reads them.
	args := append([]string{"--disable-leader-election=true", "--metrics-port=0", "--health-probe-port=0"}, c.options.Args[Karpenter]...)
	command := exec.Command(c.binary(Karpenter), args...) //nolint:noctx // Stop and Kill end it, not the end of a call
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "SYSTEM_NAMESPACE=kube-system")
	p, err := c.launch(Karpenter, command, startOnLivingThread)
	if err != nil {
		return err
	}
	return p.waitReady(ctx, func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, nil, "wait", "--for=condition=Ready", "--timeout=3s", "nodepool/default")
		return err
	})
}
