// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"crypto"
	"crypto/x509"
	"net"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	kubeadmapi "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"
	"k8s.io/kubernetes/cmd/kubeadm/app/util/pkiutil"
)

// authority signs certificates of one cluster.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// newAuthority makes an authority and writes dir/name.crt and dir/name.key.
func newAuthority(dir, name string) (*authority, error) {
	cert, key, err := pkiutil.NewCertificateAuthority(&pkiutil.CertConfig{
		Config:              certutil.Config{CommonName: "localcluster-" + name},
		EncryptionAlgorithm: kubeadmapi.EncryptionAlgorithmECDSAP256,
	})
	if err != nil {
		return nil, err
	}
	return &authority{dir: dir, cert: cert, key: key}, pkiutil.WriteCertAndKey(dir, name, cert, key)
}

// path returns the path of one of the authority's files.
func (a *authority) path(name string) string {
	return filepath.Join(a.dir, name)
}

// caPEM returns the authority's certificate.
func (a *authority) caPEM() []byte {
	return pkiutil.EncodeCertPEM(a.cert)
}

// issueServer writes name.crt and name.key, for a server on the loopback address
// or on the control plane's machine.
func (a *authority) issueServer(name string, dnsNames ...string) error {
	config := certutil.Config{
		CommonName: name,
		Usages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		AltNames: certutil.AltNames{
			DNSNames: append(dnsNames, "localhost"),
			IPs:      []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 0, 0, 1), net.ParseIP(controlPlaneAddress)},
		},
	}
	cert, key, err := a.issue(config)
	if err != nil {
		return err
	}
	return pkiutil.WriteCertAndKey(a.dir, name, cert, key)
}

// issueClient writes name.crt and name.key, with which a client is user of groups.
func (a *authority) issueClient(name, user string, groups ...string) error {
	cert, key, err := a.issue(clientOf(user, groups))
	if err != nil {
		return err
	}
	return pkiutil.WriteCertAndKey(a.dir, name, cert, key)
}

// issueServiceAccountKey writes sa.key and sa.pub, which sign and verify tokens.
func (a *authority) issueServiceAccountKey() error {
	key, err := pkiutil.NewPrivateKey(kubeadmapi.EncryptionAlgorithmECDSAP256)
	if err != nil {
		return err
	}
	if err := pkiutil.WriteKey(a.dir, "sa", key); err != nil {
		return err
	}
	return pkiutil.WritePublicKey(a.dir, "sa", key.Public())
}

// issueKubeconfig writes name.kubeconfig, with which a client is user of groups.
func (a *authority) issueKubeconfig(name, server, user string, groups ...string) (string, error) {
	cert, key, err := a.issue(clientOf(user, groups))
	if err != nil {
		return "", err
	}
	keyPEM, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return "", err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["localcluster"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: a.caPEM()}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: pkiutil.EncodeCertPEM(cert), ClientKeyData: keyPEM}
	config.Contexts["localcluster"] = &clientcmdapi.Context{Cluster: "localcluster", AuthInfo: name}
	config.CurrentContext = "localcluster"
	path := a.path(name + ".kubeconfig")
	return path, clientcmd.WriteToFile(*config, path)
}

func clientOf(user string, groups []string) certutil.Config {
	return certutil.Config{
		CommonName:   user,
		Organization: groups,
		Usages:       []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func (a *authority) issue(config certutil.Config) (*x509.Certificate, crypto.Signer, error) {
	return pkiutil.NewCertAndKey(a.cert, a.key, &pkiutil.CertConfig{
		Config:              config,
		EncryptionAlgorithm: kubeadmapi.EncryptionAlgorithmECDSAP256,
	})
}
