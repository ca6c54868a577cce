// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// PodProgram returns how the program of one of everynode's pods is started on this
// machine: with its arguments, what it mounts, and a token of its ServiceAccount. Only the
// paths differ, which are below dir, and its address: the port is of the loopback address.
func (c *Cluster) PodProgram(ctx context.Context, namespace string, pod *corev1.PodSpec, dir string, port int) (program string, args []string, err error) {
	kubeconfig, err := c.tokenKubeconfig(ctx, namespace, pod.ServiceAccountName, dir)
	if err != nil {
		return "", nil, err
	}
	container := &pod.Containers[0]
	args = slices.Clone(container.Args)
	for _, mount := range container.VolumeMounts {
		files, err := c.mounted(ctx, namespace, pod, mount.Name)
		if err != nil {
			return "", nil, err
		}
		target := filepath.Join(dir, mount.MountPath)
		if err := os.MkdirAll(target, 0o700); err != nil {
			return "", nil, err
		}
		for name, content := range files {
			// In a pod the scheduler finds the API server by itself.
			if bytes.Contains(content, []byte("kind: KubeSchedulerConfiguration")) {
				content = WithKubeconfig(content, kubeconfig)
			}
			if err := os.WriteFile(filepath.Join(target, name), content, 0o600); err != nil {
				return "", nil, err
			}
		}
		for i := range args {
			args[i] = strings.Replace(args[i], "="+mount.MountPath+"/", "="+target+"/", 1)
		}
	}
	program, _, _ = strings.Cut(path.Base(container.Image), ":")
	args = append(args, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--permit-port-sharing")
	if program == EverynodeScheduler {
		return c.binary(program), append(args, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig), nil
	}
	return c.binary(program), append(args, "--kubeconfig="+kubeconfig, "--namespace="+namespace), nil
}

// mounted returns the files of one of a pod's volumes.
func (c *Cluster) mounted(ctx context.Context, namespace string, pod *corev1.PodSpec, volume string) (map[string][]byte, error) {
	files := make(map[string][]byte)
	for i := range pod.Volumes {
		switch source := &pod.Volumes[i].VolumeSource; {
		case pod.Volumes[i].Name != volume:
		case source.ConfigMap != nil:
			configMap, err := c.Client.CoreV1().ConfigMaps(namespace).Get(ctx, source.ConfigMap.Name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			for name, content := range configMap.Data {
				files[name] = []byte(content)
			}
		case source.Secret != nil:
			secret, err := c.Client.CoreV1().Secrets(namespace).Get(ctx, source.Secret.SecretName, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			maps.Copy(files, secret.Data)
		case source.Projected != nil:
			// The token, which is in the kubeconfig.
		default:
			return nil, fmt.Errorf("volume %s is neither ConfigMap nor Secret", volume)
		}
	}
	return files, nil
}

// tokenKubeconfig writes one with a token of a ServiceAccount, and nothing else.
func (c *Cluster) tokenKubeconfig(ctx context.Context, namespace, account, dir string) (string, error) {
	token, err := c.Client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["localcluster"] = &clientcmdapi.Cluster{Server: c.server(), CertificateAuthorityData: c.ca.caPEM()}
	config.AuthInfos[account] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["localcluster"] = &clientcmdapi.Context{Cluster: "localcluster", AuthInfo: account}
	config.CurrentContext = "localcluster"
	file := filepath.Join(dir, account+".kubeconfig")
	return file, clientcmd.WriteToFile(*config, file)
}

// WithKubeconfig returns a KubeSchedulerConfiguration of everynode with the path of the kubeconfig in it.
func WithKubeconfig(config []byte, kubeconfig string) []byte {
	return bytes.Replace(config, []byte("\nclientConnection:\n"), fmt.Appendf(nil, "\nclientConnection:\n  kubeconfig: %s\n", kubeconfig), 1)
}
