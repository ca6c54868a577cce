// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"everynode.dev/everynode/pkg/image"
)

// program builds the smallest program there is.
func program(t *testing.T, environment ...string) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	built := filepath.Join(dir, "hello")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", built, source)
	build.Env = append(os.Environ(), append([]string{"CGO_ENABLED=0", "GOOS=linux"}, environment...)...)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return built
}

func TestImageRunsOnEveryArchitecture(t *testing.T) {
	labels := map[string]string{"org.opencontainers.image.title": "hello"}
	created := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	files := t.TempDir()
	if err := os.MkdirAll(filepath.Join(files, "licenses", "other"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"LICENSE", "other/LICENSE"} {
		if err := os.WriteFile(filepath.Join(files, "licenses", name), []byte("free"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i := image.Image{
		Files: files, Reference: "localhost/hello:v1.2.3", User: "65532:65532", Labels: labels, Created: created,
		Programs: []string{program(t, "GOARCH=amd64"), program(t, "GOARCH=arm64")},
	}
	dir := t.TempDir()
	if _, err := i.WriteLayout(dir); err != nil {
		t.Fatal(err)
	}
	root, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(root); err != nil {
		t.Fatal(err)
	}
	roots, err := root.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	wantNames := map[string]string{"org.opencontainers.image.ref.name": "v1.2.3", "io.containerd.image.name": "localhost/hello:v1.2.3"}
	if diff := cmp.Diff(wantNames, roots.Manifests[0].Annotations); diff != "" {
		t.Errorf("names (-want,+got):\n%s", diff)
	}
	index, err := root.ImageIndex(roots.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, descriptor := range manifest.Manifests {
		platforms = append(platforms, descriptor.Platform.String())
		one, err := index.Image(descriptor.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := one.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		wantConfig := v1.Config{User: "65532:65532", Entrypoint: []string{"/hello"}, Labels: labels}
		if diff := cmp.Diff(wantConfig, config.Config); diff != "" {
			t.Errorf("%s: configuration (-want,+got):\n%s", descriptor.Platform, diff)
		}
		if config.Platform().String() != descriptor.Platform.String() || !config.Created.Equal(created) {
			t.Errorf("%s: the image says that it is for %s, of %s", descriptor.Platform, config.Platform(), config.Created)
		}
		wantFiles := map[string]int64{"hello": 0o555, "etc/passwd": 0o444, "licenses/LICENSE": 0o444, "licenses/other/LICENSE": 0o444}
		if diff := cmp.Diff(wantFiles, modes(t, mutate.Extract(one))); diff != "" {
			t.Errorf("%s: files (-want,+got):\n%s", descriptor.Platform, diff)
		}
	}
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms); diff != "" {
		t.Errorf("platforms (-want,+got):\n%s", diff)
	}
}

// modes returns the names and modes of the files of an archive.
func modes(t *testing.T, archive io.ReadCloser) map[string]int64 {
	t.Helper()
	defer archive.Close()
	modes := make(map[string]int64)
	reader := tar.NewReader(archive)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return modes
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[header.Name] = header.Mode
	}
}

func TestSameProgramsGiveTheSameImage(t *testing.T) {
	var digests []string
	for range 2 {
		// Each is built from source in a folder of its own.
		i := image.Image{Reference: "localhost/hello:1", Programs: []string{program(t)}}
		index, err := i.WriteLayout(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		digest, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("the images are %s and %s", digests[0], digests[1])
	}
}

func TestArchiveIsALayout(t *testing.T) {
	i := image.Image{Reference: "localhost/hello:1", Programs: []string{program(t)}}
	dir := t.TempDir()
	path := filepath.Join(dir, "hello.tar")
	if err := i.WriteArchive(path); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	files := modes(t, file)
	for _, name := range []string{"oci-layout", "index.json"} {
		if _, found := files[name]; !found {
			t.Errorf("the archive has no %s, but %v", name, files)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".image-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUnusableProgramsAreRefused(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		reference string
		programs  []string
		want      string
	}{
		"no program":              {programs: nil, want: "no program"},
		"no such file":            {programs: []string{text + "s"}, want: "no such file"},
		"not a Go program":        {programs: []string{text}, want: "unrecognized file format"},
		"may need the C library":  {programs: []string{program(t, "CGO_ENABLED=1")}, want: "build it with CGO_ENABLED=0"},
		"another system's":        {programs: []string{program(t, "GOOS=windows")}, want: "is for windows: containers want GOOS=linux"},
		"not a name for an image": {reference: "localhost/Hello", programs: []string{text}, want: "could not parse reference"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.reference == "" {
				tc.reference = "localhost/hello:1"
			}
			i := image.Image{Reference: tc.reference, Programs: tc.programs}
			if _, err := i.WriteLayout(t.TempDir()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
