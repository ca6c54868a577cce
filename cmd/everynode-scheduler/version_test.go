// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/util/version"
	apimachineryversion "k8s.io/apimachinery/pkg/version"
)

// apiServer tells its version once it has failed as often as it shall.
type apiServer struct {
	gitVersion string
	failures   int
}

func (s *apiServer) ServerVersion() (*apimachineryversion.Info, error) {
	if s.failures > 0 {
		s.failures--
		return nil, errors.New("connection refused")
	}
	return &apimachineryversion.Info{GitVersion: s.gitVersion}, nil
}

func TestCheckAPIServer(t *testing.T) {
	const newer = "the API server is of version 1.36.3, and this scheduler works as version 1.37: start it with --emulated-version=1.36"
	for gitVersion, wants := range map[string]map[string]string{
		"v1.37.2":             {"1.37": "", "1.36": ""},
		"v1.36.3":             {"1.37": newer, "1.36": ""},
		"v1.36.3-gke.1234":    {"1.37": newer},
		"v1.36.3+k3s1":        {"1.37": newer},
		"v1.38.0-alpha.1+abc": {"1.37": ""},
		"v2.0.0":              {"1.37": ""},
	} {
		for emulated, want := range wants {
			err := checkAPIServer(t.Context(), &apiServer{gitVersion: gitVersion, failures: 1}, version.MustParseGeneric(emulated))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("API server %s, scheduler as %s: error %q, want %q", gitVersion, emulated, got, want)
			}
		}
	}
}
