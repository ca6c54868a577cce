// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"everynode.dev/everynode/deploy"
	"everynode.dev/everynode/test/localcluster"
)

// webhookService is the Service by which the API server looks for the webhook. It leads
// to the replicas here: endpoints on the loopback address are not allowed.
const webhookService = `
apiVersion: v1
kind: Service
metadata: {namespace: everynode-system, name: everynode-webhook}
spec: {type: ExternalName, externalName: localhost}
`

// webhookSecret is the Secret that they keep them in.
const webhookSecret = "everynode-webhook-tls" //nolint:gosec // the name of a Secret is no secret

// replicas are two replicas of the webhook that make their certificates themselves.
// Every pod that a DaemonSet controls is sent to both, and refused if one of them
// cannot be reached.
type replicas struct {
	*cluster
	// ports of the replicas by their names.
	ports map[string]int
	// caBundle is what the API server trusts at first.
	caBundle []byte
}

// newReplicas starts a cluster for replicas.
func newReplicas(t *testing.T) *replicas {
	t.Helper()
	c := newCluster(t, func(o *localcluster.Options) { o.Scheduler, o.Webhook = localcluster.None, false })
	c.apply(webhookService + "---" + daemonSet("owner", "", ""))
	return &replicas{cluster: c, ports: make(map[string]int)}
}

// start starts both replicas at once, and waits until they are ready.
func (r *replicas) start(args ...string) {
	r.t.Helper()
	for _, name := range []string{"webhook-a", "webhook-b"} {
		port, err := r.StartReplica(r.t.Context(), name, append(args, "-v=10")...)
		if err != nil {
			r.t.Fatal(err)
		}
		r.ports[name] = port
	}
	r.register()
	r.eventually(time.Minute, "both replicas are ready", r.ready)
}

// register registers the replicas as the shipped configuration does, but for their
// ports, and with requests that fail rather than pass without them.
func (r *replicas) register() {
	r.t.Helper()
	var mutating admissionregistrationv1.MutatingWebhookConfiguration
	if err := yaml.UnmarshalStrict(deploy.Webhook, &mutating); err != nil {
		r.t.Fatal(err)
	}
	shipped := mutating.Webhooks[0]
	shipped.ClientConfig.CABundle = r.caBundle
	mutating.Webhooks = nil
	for name, port := range r.ports {
		entry := *shipped.DeepCopy()
		entry.Name = name + ".everynode.dev"
		entry.ClientConfig.Service.Port = new(int32(port))
		entry.FailurePolicy = ptr.To(admissionregistrationv1.Fail)
		// How fast a busy machine answers is no matter of certificates.
		entry.TimeoutSeconds = ptr.To[int32](20)
		mutating.Webhooks = append(mutating.Webhooks, entry)
	}
	// Nobody has this resource: only the caBundle matters.
	validating := admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: mutating.ObjectMeta,
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name:                    "validating.everynode.dev",
			AdmissionReviewVersions: shipped.AdmissionReviewVersions,
			ClientConfig:            shipped.ClientConfig,
			SideEffects:             shipped.SideEffects,
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{"example.com"}, APIVersions: []string{"v1"}, Resources: []string{"nothings"}},
			}},
		}},
	}
	api := r.Client.AdmissionregistrationV1()
	_, mutatingErr := api.MutatingWebhookConfigurations().Create(r.t.Context(), &mutating, metav1.CreateOptions{})
	_, validatingErr := api.ValidatingWebhookConfigurations().Create(r.t.Context(), &validating, metav1.CreateOptions{})
	if err := errors.Join(mutatingErr, validatingErr); err != nil {
		r.t.Fatal(err)
	}
}

// trusted returns the CAs that the API server trusts in all webhooks. The two
// configurations cannot be written at once: what is served has to be right in between.
func (r *replicas) trusted(ctx context.Context) ([]*x509.Certificate, error) {
	api := r.Client.AdmissionregistrationV1()
	mutating, err := api.MutatingWebhookConfigurations().Get(ctx, "everynode", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	validating, err := api.ValidatingWebhookConfigurations().Get(ctx, "everynode", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	common, err := certutil.ParseCertsPEM(validating.Webhooks[0].ClientConfig.CABundle)
	if err != nil {
		return nil, err
	}
	for i := range mutating.Webhooks {
		bundle, err := certutil.ParseCertsPEM(mutating.Webhooks[i].ClientConfig.CABundle)
		if err != nil {
			return nil, err
		}
		common = slices.DeleteFunc(common, func(ca *x509.Certificate) bool { return !slices.ContainsFunc(bundle, ca.Equal) })
	}
	if len(common) == 0 {
		return nil, errors.New("no CA is in the caBundles of all webhooks")
	}
	return common, nil
}

// get reads a path of a replica in a connection of its own, as a client that
// trusts cas.
func (r *replicas) get(ctx context.Context, name, path string, cas []*x509.Certificate) (_ string, err error) {
	roots := x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "everynode-webhook.everynode-system.svc", MinVersion: tls.VersionTLS12},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort("127.0.0.1", strconv.Itoa(r.ports[name]))+path, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

// ready checks that both replicas can be verified and say that they are ready.
func (r *replicas) ready(ctx context.Context) error {
	cas, err := r.trusted(ctx)
	if err != nil {
		return err
	}
	for name := range r.ports {
		if _, err := r.get(ctx, name, "/readyz", cas); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// rotations returns how many CAs and serving certificates the replicas have made.
func (r *replicas) rotations(ctx context.Context) (cas, serving int, err error) {
	trusted, err := r.trusted(ctx)
	if err != nil {
		return 0, 0, err
	}
	for name := range r.ports {
		metrics, err := r.get(ctx, name, "/metrics", trusted)
		if err != nil {
			return 0, 0, err
		}
		for _, match := range regexp.MustCompile(`(?m)^everynode_webhook_certificate_rotations_total\{what="(\w+)"\} (\d+)$`).FindAllStringSubmatch(metrics, -1) {
			count, err := strconv.Atoi(match[2])
			if err != nil {
				return 0, 0, err
			}
			if match[1] == "ca" {
				cas += count
			} else {
				serving += count
			}
		}
	}
	return cas, serving, nil
}

// load is requests that are made all the time.
type load struct {
	requests, connections atomic.Int64
	mu                    sync.Mutex
	failed                []string
	stop                  func()
}

// startLoad creates pods through the API server, and opens connections to each
// replica, until it is stopped. Neither may ever fail.
func (r *replicas) startLoad() *load {
	r.t.Helper()
	owner, err := r.Client.AppsV1().DaemonSets("default").Get(r.t.Context(), "owner", metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.eventually(10*time.Second, "a pod can be created", func(ctx context.Context) error { return r.createPod(ctx, owner.UID) })

	l := &load{}
	ctx, cancel := context.WithCancel(r.t.Context())
	var workers sync.WaitGroup
	l.stop = func() {
		cancel()
		workers.Wait()
	}
	repeat := func(what string, count *atomic.Int64, do func(context.Context) error) {
		workers.Go(func() {
			wait.UntilWithContext(ctx, func(ctx context.Context) {
				if err := do(ctx); err != nil && ctx.Err() == nil {
					l.mu.Lock()
					defer l.mu.Unlock()
					l.failed = append(l.failed, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), what, err))
				}
				count.Add(1)
			}, 10*time.Millisecond)
		})
	}
	for range 2 {
		repeat("creating a pod", &l.requests, func(ctx context.Context) error { return r.createPod(ctx, owner.UID) })
	}
	for name := range r.ports {
		repeat("connecting to "+name, &l.connections, func(ctx context.Context) error {
			cas, err := r.trusted(ctx)
			if err == nil {
				_, err = r.get(ctx, name, "/healthz", cas)
			}
			return err
		})
	}
	return l
}

// end stops the load and fails the test if anything has failed.
func (r *replicas) end(l *load) {
	r.t.Helper()
	l.stop()
	r.t.Logf("%d pods were created, %d connections opened, %d of all failed", l.requests.Load(), l.connections.Load(), len(l.failed))
	if len(l.failed) > 0 {
		r.t.Errorf("the first failures:\n%s", strings.Join(l.failed[:min(len(l.failed), 10)], "\n"))
	}
	if l.requests.Load() == 0 || l.connections.Load() == 0 {
		r.t.Error("there was no load")
	}
}

// password is what pods are told that nobody else shall know.
const password = "correct-horse-battery-staple"

// createPod has the API server ask the webhooks about a pod, and checks that they
// have answered.
func (r *replicas) createPod(ctx context.Context, owner types.UID) error {
	pod, err := r.Client.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "owner-",
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "DaemonSet", Name: "owner", UID: owner, Controller: new(true),
			}},
		},
		Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{
			Name: "main", Image: "example/owner:1.0", Env: []corev1.EnvVar{{Name: "PASSWORD", Value: password}},
		}}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil && (pod.Spec.NodeName != "" || pod.Spec.Affinity == nil) {
		err = errors.New("the pod was not changed")
	}
	return err
}

// secret returns the Secret with the certificates.
func (r *replicas) secret(ctx context.Context) (*corev1.Secret, error) {
	return r.Client.CoreV1().Secrets(deploy.Namespace).Get(ctx, webhookSecret, metav1.GetOptions{})
}

// newestCA returns the CA that signs.
func (r *replicas) newestCA(ctx context.Context) (*x509.Certificate, error) {
	secret, err := r.secret(ctx)
	if err != nil {
		return nil, err
	}
	cas, err := certutil.ParseCertsPEM(secret.Data["ca.crt"])
	if err != nil {
		return nil, err
	}
	return cas[0], nil
}

// anotherCA checks that everything is as it should be, with another CA than before,
// which it takes down.
func (r *replicas) anotherCA(before **x509.Certificate) func(context.Context) error {
	return func(ctx context.Context) error {
		newest, err := r.newestCA(ctx)
		if err != nil {
			return err
		}
		if newest.Equal(*before) {
			return errors.New("the CA is the same")
		}
		for name := range r.ports {
			// Only the newest is trusted here.
			if _, err := r.get(ctx, name, "/readyz", []*x509.Certificate{newest}); err != nil {
				return err
			}
		}
		*before = newest
		return nil
	}
}

// noSecretsInLogs checks that the replicas, which log as much as they can, have logged
// no private key, and nothing of what is in pods.
func (r *replicas) noSecretsInLogs() {
	r.t.Helper()
	key := []byte("-----BEGIN EC PRIVATE KEY-----")
	for name := range r.ports {
		log, err := os.ReadFile(r.Process(name).Log)
		if err != nil {
			r.t.Fatal(err)
		}
		// As it stands in JSON, cut where it does not depend on what follows.
		encoded := base64.StdEncoding.EncodeToString(key)[:32]
		if bytes.Contains(log, key) || bytes.Contains(log, []byte(encoded)) {
			r.t.Errorf("%s has logged a private key", name)
		}
		if bytes.Contains(log, []byte(password)) {
			r.t.Errorf("%s has logged what is in a pod", name)
		}
		if !bytes.Contains(log, []byte("Response Body")) {
			r.t.Errorf("%s was not verbose enough to try", name)
		}
	}
}

// Certificates are renewed, and the CA replaced, while pods are created all the
// time: none of them fails.
func TestCertificatesRotate(t *testing.T) {
	t.Parallel()
	// A CA lives 32 s and is replaced after 22, a serving certificate after 5.5.
	r := newReplicas(t)
	r.start("--cert-lifetime=8s")
	firstCAs, firstServing, err := r.rotations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if firstCAs != 1 {
		t.Errorf("two replicas that start at once have made %d CAs, want 1", firstCAs)
	}
	l := r.startLoad()
	var cas, serving int
	r.eventually(3*time.Minute, "the certificates are rotated", func(ctx context.Context) (err error) {
		if cas, serving, err = r.rotations(ctx); err != nil {
			return err
		}
		if cas < firstCAs+1 || serving < firstServing+6 {
			return fmt.Errorf("%d CAs and %d serving certificates were made", cas, serving)
		}
		return nil
	})
	r.end(l)
	t.Logf("%d CAs and %d serving certificates were made", cas, serving)
	r.noSecretsInLogs()
}

// Whatever is done to the Secret and the caBundles, it is made good.
func TestCertificatesAreRepaired(t *testing.T) {
	t.Parallel()
	r := newReplicas(t)
	r.start()
	first, err := r.newestCA(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	anotherCA := r.anotherCA(&first)
	secrets := r.Client.CoreV1().Secrets(deploy.Namespace)

	l := r.startLoad()
	if err := secrets.Delete(t.Context(), webhookSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually(30*time.Second, "a deleted Secret is made anew", anotherCA)
	patch := `{"data": {"ca.crt": "Z2FyYmFnZQ==", "ca.key": null, "tls.crt": "Z2FyYmFnZQ=="}}`
	if _, err := secrets.Patch(t.Context(), webhookSecret, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually(30*time.Second, "a garbled Secret is made anew", anotherCA)
	r.end(l)

	// Nothing was changed but the caBundles: everybody keeps to what they serve.
	api := r.Client.AdmissionregistrationV1()
	emptied := `[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]`
	_, mutatingErr := api.MutatingWebhookConfigurations().Patch(t.Context(), "everynode", types.JSONPatchType, []byte(emptied), metav1.PatchOptions{})
	_, validatingErr := api.ValidatingWebhookConfigurations().Patch(t.Context(), "everynode", types.JSONPatchType, []byte(emptied), metav1.PatchOptions{})
	if err := errors.Join(mutatingErr, validatingErr); err != nil {
		t.Fatal(err)
	}
	r.eventually(10*time.Second, "an emptied caBundle is filled", r.ready)
	if newest, err := r.newestCA(t.Context()); err != nil || !newest.Equal(first) {
		t.Errorf("another CA was made (%v)", err)
	}
	if err := api.MutatingWebhookConfigurations().Delete(t.Context(), "everynode", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := api.ValidatingWebhookConfigurations().Delete(t.Context(), "everynode", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.register()
	r.eventually(10*time.Second, "the caBundle of a new webhook configuration is filled", r.ready)

	r.serveOnWithoutAPIServer()
	l = r.startLoad()
	if err := secrets.Delete(t.Context(), webhookSecret, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	r.eventually(time.Minute, "a Secret that is deleted after a restart of the API server is made anew", anotherCA)
	r.end(l)
	r.noSecretsInLogs()
}

// The clock was set: what was made before it, and is trusted everywhere, has expired long
// ago or is not valid yet. Replicas that start then, and replicas that find it in
// the Secret while they serve, replace it.
func TestCertificatesOfAnotherTime(t *testing.T) {
	t.Parallel()
	for name, made := range map[string]time.Time{
		"the clock was set forward": time.Now().AddDate(-5, 0, 0), "the clock was set back": time.Now().AddDate(5, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReplicas(t)
			secret, ca := certificatesOf(t, made)
			// The chart brings an empty one.
			r.kubectl("delete", "secret", webhookSecret, "--namespace", deploy.Namespace, "--ignore-not-found")
			if _, err := r.Client.CoreV1().Secrets(deploy.Namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			r.caBundle = secret.Data["ca.crt"]
			r.start()
			newest := ca
			r.eventually(30*time.Second, "the certificates are made anew", r.anotherCA(&newest))

			l := r.startLoad()
			// Whoever's clock was wrong has written it.
			if _, err := r.Client.CoreV1().Secrets(deploy.Namespace).Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			r.eventually(30*time.Second, "they are made anew again", func(ctx context.Context) error {
				if current, err := r.newestCA(ctx); err != nil || current.Equal(ca) {
					return fmt.Errorf("the CA is that of another time (%w)", err)
				}
				return r.anotherCA(&newest)(ctx)
			})
			r.end(l)
		})
	}
}

// certificatesOf returns a Secret as the webhook has made it at some time, and its CA.
func certificatesOf(t *testing.T, made time.Time) (*corev1.Secret, *x509.Certificate) {
	t.Helper()
	const name = "everynode-webhook.everynode-system.svc"
	// certify returns a certificate, and it and its key as PEM.
	certify := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (certificate *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM []byte) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.NotBefore, template.NotAfter = made.Add(-time.Hour), made.AddDate(0, 3, 0)
		if parent == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err = x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		certPEM, certErr := certutil.EncodeCertificates(certificate)
		keyPEM, keyErr := keyutil.MarshalPrivateKeyToPEM(key)
		if err := errors.Join(certErr, keyErr); err != nil {
			t.Fatal(err)
		}
		return certificate, key, certPEM, keyPEM
	}
	ca, caKey, caPEM, caKeyPEM := certify(&x509.Certificate{
		Subject: pkix.Name{CommonName: "everynode-webhook-ca"}, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{name},
	}, nil, nil)
	_, _, certPEM, keyPEM := certify(&x509.Certificate{
		Subject: pkix.Name{CommonName: "everynode-webhook"}, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: webhookSecret, Annotations: map[string]string{"everynode.dev/certificates": "self-managed"}},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{"ca.crt": caPEM, "ca.key": caKeyPEM, corev1.TLSCertKey: certPEM, corev1.TLSPrivateKeyKey: keyPEM},
	}, ca
}

// serveOnWithoutAPIServer takes the API server away for a while: the replicas go on.
func (r *replicas) serveOnWithoutAPIServer() {
	r.t.Helper()
	cas, err := r.trusted(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.Process(localcluster.APIServer).Kill()
	for name := range r.ports {
		if _, err := r.get(r.t.Context(), name, "/readyz", cas); err != nil {
			r.t.Errorf("%s without an API server: %v", name, err)
		}
	}
	if err := r.StartAPIServer(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.eventually(30*time.Second, "both replicas are ready", r.ready)
}
