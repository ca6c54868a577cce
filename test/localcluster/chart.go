// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"context"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/deploy"
)

// chartValues have no pods made: the programs run on this machine. The rest is what
// this machine lacks.
const chartValues = `
mode: replace
scheduler: {replicas: 0}
webhook: {replicas: 0}
`

// webhookService is the Service by which the API server looks for the webhook. It leads
// to this machine: endpoints on the loopback address are not allowed.
const webhookService = `
apiVersion: v1
kind: Service
metadata: {namespace: ` + deploy.Namespace + `, name: ` + EverynodeWebhook + `}
spec: {type: ExternalName, externalName: localhost}
`

// webhookCertificate is the Secret with the webhook's certificate.
const webhookCertificate = EverynodeWebhook + "-certificate"

// installChart installs the chart, with a certificate of the cluster's own authority for
// the webhook. Without a webhook that is to be registered, its configurations are deleted,
// and those that start replicas of it make their certificates themselves.
func (c *Cluster) installChart(ctx context.Context) error {
	args := []string{"install", "everynode", c.options.Chart, "--namespace", deploy.Namespace, "--values", c.path("values.yaml")}
	if err := os.WriteFile(c.path("values.yaml"), []byte(chartValues), 0o600); err != nil {
		return err
	}
	if c.options.ChartValues != nil {
		if err := os.WriteFile(c.path("more-values.yaml"), c.options.ChartValues, 0o600); err != nil {
			return err
		}
		args = append(args, "--values", c.path("more-values.yaml"))
	}
	if c.options.SchedulerConfig != nil || c.options.PluginArgs != nil {
		if err := c.writeEverynodeConfig(c.path("scheduler-config.yaml")); err != nil {
			return err
		}
		args = append(args, "--set-file", "scheduler.config="+c.path("scheduler-config.yaml"))
	}
	if _, err := c.Kubectl(ctx, deploy.NamespaceManifest, "apply", "-f", "-"); err != nil {
		return err
	}
	if c.options.Webhook {
		if err := c.ca.issueServer(EverynodeWebhook, EverynodeWebhook+"."+deploy.Namespace+".svc"); err != nil {
			return err
		}
		if _, err := c.Kubectl(ctx, nil, "create", "secret", "tls", webhookCertificate, "--namespace", deploy.Namespace,
			"--cert="+c.ca.path(EverynodeWebhook+".crt"), "--key="+c.ca.path(EverynodeWebhook+".key")); err != nil {
			return err
		}
		args = append(args, "--set", "webhook.certificates.mode=secret,webhook.certificates.secretName="+webhookCertificate,
			"--set-file", "webhook.certificates.caBundle="+c.ca.path("ca.crt"))
	}
	if _, err := c.Helm(ctx, args...); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, []byte(webhookService), "apply", "-f", "-"); err != nil {
		return err
	}
	if !c.options.Webhook {
		_, err := c.Kubectl(ctx, nil, "delete", "mutatingwebhookconfiguration/everynode", "validatingwebhookconfiguration/everynode")
		return err
	}
	return c.setWebhookPort(ctx)
}

// setWebhookPort has the API server find the webhook at its port.
func (c *Cluster) setWebhookPort(ctx context.Context) error {
	port, api := int32(c.webhookPort.number), c.Client.AdmissionregistrationV1()
	mutating, err := api.MutatingWebhookConfigurations().Get(ctx, "everynode", metav1.GetOptions{})
	if err != nil {
		return err
	}
	for i := range mutating.Webhooks {
		mutating.Webhooks[i].ClientConfig.Service.Port = &port
	}
	if _, err := api.MutatingWebhookConfigurations().Update(ctx, mutating, metav1.UpdateOptions{}); err != nil {
		return err
	}
	validating, err := api.ValidatingWebhookConfigurations().Get(ctx, "everynode", metav1.GetOptions{})
	if err != nil {
		return err
	}
	for i := range validating.Webhooks {
		validating.Webhooks[i].ClientConfig.Service.Port = &port
	}
	_, err = api.ValidatingWebhookConfigurations().Update(ctx, validating, metav1.UpdateOptions{})
	return err
}

// installedProgram returns how a Deployment's program is started on this machine.
func (c *Cluster) installedProgram(ctx context.Context, name, deployment string, port *port) (program string, args []string, err error) {
	found, err := c.Client.AppsV1().Deployments(deploy.Namespace).Get(ctx, deployment, metav1.GetOptions{})
	if err != nil {
		return "", nil, err
	}
	dir := c.path(name + "-files")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	return c.PodProgram(ctx, deploy.Namespace, &found.Spec.Template.Spec, dir, port.number)
}

// writeEverynodeConfig writes the configuration of everynode-scheduler.
func (c *Cluster) writeEverynodeConfig(path string) error {
	config, err := c.everynodeConfig()
	if err != nil {
		return err
	}
	content, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}
