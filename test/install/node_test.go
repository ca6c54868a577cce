// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"everynode.dev/everynode/test/clustertest"
)

// node runs the chart's pods as processes of this machine, and leads to them what is
// for their Services: for these pods it does what a kubelet and kube-proxy do.
type node struct {
	*cluster
	mu      sync.Mutex
	started map[types.UID]bool
	// ports of this machine by pods' IPs.
	ports map[string]int
	group sync.WaitGroup
}

// startNode begins to run the pods with the chart's label.
func (c *cluster) startNode() *node {
	n := &node{cluster: c, started: make(map[types.UID]bool), ports: make(map[string]int)}
	ctx, cancel := context.WithCancel(c.Context())
	n.group.Go(func() { wait.UntilWithContext(ctx, n.sync, 100*time.Millisecond) })
	c.Cleanup(func() {
		cancel()
		n.group.Wait()
	})
	return n
}

// pods returns the chart's pods that a scheduler has placed.
func (c *cluster) pods(ctx context.Context, selector string) ([]corev1.Pod, error) {
	list, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=everynode,app.kubernetes.io/component!=check" + selector,
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return pod.Spec.NodeName == "" }), nil
}

// sync starts the pods that are new.
func (n *node) sync(ctx context.Context) {
	pods, err := n.pods(ctx, "")
	if err != nil {
		// The next time, perhaps.
		return
	}
	for i := range pods {
		pod := &pods[i]
		if n.started[pod.UID] {
			continue
		}
		n.started[pod.UID] = true
		n.group.Go(func() {
			if err := n.run(ctx, pod); err != nil && ctx.Err() == nil {
				n.Errorf("pod %s/%s: %v", pod.Namespace, pod.Name, err)
			}
		})
	}
}

// run runs a pod until it is deleted.
func (n *node) run(ctx context.Context, pod *corev1.Pod) error {
	port, err := n.ReservePort()
	if err != nil {
		return err
	}
	program, args, err := n.PodProgram(ctx, pod.Namespace, &pod.Spec, n.TempDir(), port)
	if err != nil {
		return err
	}
	p, err := n.start(pod.Name, program, args)
	if err != nil {
		return err
	}
	n.mu.Lock()
	pod.Status.PodIP = fmt.Sprintf("10.200.0.%d", len(n.ports)+1)
	n.ports[pod.Status.PodIP] = port
	n.mu.Unlock()

	pods, ready := n.Client.CoreV1().Pods(pod.Namespace), false
	err = wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		now, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil || now.DeletionTimestamp != nil {
			return true, err
		}
		select {
		case <-p.ended:
			return true, errors.New("the program has ended by itself")
		default:
		}
		if is := get(ctx, port, pod.Spec.Containers[0].ReadinessProbe.HTTPGet.Path, "") == nil; is != ready || now.Status.Phase == corev1.PodPending {
			ready = is
			return false, n.report(ctx, now, pod.Status.PodIP, ready)
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	if err := p.stop(ctx, grace); err != nil {
		return err
	}
	err = pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return err
}

// port returns the port of a pod's program.
func (n *node) port(pod *corev1.Pod) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ports[pod.Status.PodIP]
}

// report writes into a pod's status that it runs, and whether it is ready.
func (n *node) report(ctx context.Context, pod *corev1.Pod, ip string, ready bool) error {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	for _, kind := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady} {
		pod.Status.Conditions = slices.DeleteFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool { return condition.Type == kind })
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: metav1.Now()})
	}
	_, err := n.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// Somebody else has changed it: the next look shows how.
		err = nil
	}
	return err
}

// probe is a client that asks as kubelets do.
var probe = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
	DisableKeepAlives: true,
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // neither do kubelets
}}

// get reads a path of a program of this machine, with a token if there is one.
func get(ctx context.Context, port int, path, token string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d%s", port, path), http.NoBody)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := probe.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	return nil
}

// serve leads the connections to a Service to the pods that are ready, and returns the
// port of its IP where it does. Like kube-proxy, it learns of a change up to a second late.
func (n *node) serve(namespace, service string) int {
	n.Helper()
	object, err := n.Client.CoreV1().Services(namespace).Get(n.Context(), service, metav1.GetOptions{})
	if err != nil {
		n.Fatal(err)
	}
	// An ordinary user may not listen on the port that the Service has.
	listener, err := (&net.ListenConfig{}).Listen(n.Context(), "tcp", net.JoinHostPort(object.Spec.ClusterIP, "0"))
	if err != nil {
		n.Fatal(err)
	}
	var (
		mu    sync.Mutex
		ready []int
	)
	ctx, cancel := context.WithCancel(n.Context())
	n.group.Go(func() {
		wait.UntilWithContext(ctx, func(ctx context.Context) {
			if ports, err := n.readyPorts(ctx, namespace, service); err == nil {
				mu.Lock()
				ready = ports
				mu.Unlock()
			}
		}, time.Second)
	})
	n.group.Go(func() {
		for turn := 0; ; turn++ {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			ports := ready
			mu.Unlock()
			if len(ports) == 0 {
				client.Close()
				continue
			}
			n.group.Go(func() { clustertest.Forward(ctx, client, ports[turn%len(ports)]) })
		}
	})
	n.Cleanup(func() {
		cancel()
		listener.Close()
	})
	return listener.Addr().(*net.TCPAddr).Port
}

// readyPorts returns the ports of the pods that a Service's EndpointSlices say are ready.
func (n *node) readyPorts(ctx context.Context, namespace, service string) ([]int, error) {
	list, err := n.Client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var ports []int
	for i := range list.Items {
		for _, endpoint := range list.Items[i].Endpoints {
			if *endpoint.Conditions.Ready {
				ports = append(ports, n.ports[endpoint.Addresses[0]])
			}
		}
	}
	return ports, nil
}
