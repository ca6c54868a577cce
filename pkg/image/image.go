// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package image makes container images of single static programs, without a container
// engine and without a registry. The same programs give the same image, to the byte.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is a container image of one program.
type Image struct {
	// Reference is its full name ("localhost/pause:1").
	Reference string
	// Programs are the program's builds, one for each architecture. The image's file is
	// called like the first.
	Programs []string
	// Files is a folder of what else is in the image, if anything.
	Files string
	// User is the numeric user, and group if wanted ("65532:65532"), that it runs as. The
	// image's /etc/passwd has them: Kubernetes passes on the user alone, and an engine that
	// finds no group there takes root's. Default: root.
	User string
	// Labels describe it (https://specs.opencontainers.org/image-spec/annotations).
	Labels map[string]string
	// Created is when it was made, as it says. Default: 1970, so that it does not matter
	// when it is made.
	Created time.Time
}

// WriteLayout writes the image into a new folder, as an OCI image layout, and returns
// its index, which is what registries and layouts keep of it.
func (i *Image) WriteLayout(dir string) (v1.ImageIndex, error) {
	reference, err := name.ParseReference(i.Reference)
	if err != nil {
		return nil, err
	}
	index, err := i.index()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Reference, err)
	}
	target, err := layout.Write(dir, empty.Index)
	if err != nil {
		return nil, err
	}
	return index, target.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": reference.Identifier(),
		// The specification knows only tags; containerd looks for the full name here.
		"io.containerd.image.name": i.Reference,
	}))
}

// WriteArchive writes the image to a file that container engines import.
func (i *Image) WriteArchive(path string) (err error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if _, err := i.WriteLayout(dir); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	archive := tar.NewWriter(file)
	return errors.Join(archive.AddFS(os.DirFS(dir)), archive.Close())
}

func (i *Image) index() (v1.ImageIndex, error) {
	if len(i.Programs) == 0 {
		return nil, errors.New("there is no program to put into it")
	}
	index := v1.ImageIndex(empty.Index)
	for _, program := range i.Programs {
		platform, err := platform(program)
		if err != nil {
			return nil, err
		}
		image, err := i.image(program, platform)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return index, nil
}

// platform says where a program runs, and that it needs no file beside itself.
func platform(program string) (*v1.Platform, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	settings := make(map[string]string)
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	if settings["GOOS"] != "linux" {
		return nil, fmt.Errorf("%s is for %s: containers want GOOS=linux", program, settings["GOOS"])
	}
	if settings["CGO_ENABLED"] != "0" {
		return nil, fmt.Errorf("%s may need the C library, and the image has none: build it with CGO_ENABLED=0", program)
	}
	return &v1.Platform{OS: settings["GOOS"], Architecture: settings["GOARCH"]}, nil
}

// image returns the image of one architecture.
func (i *Image) image(program string, platform *v1.Platform) (v1.Image, error) {
	entrypoint := filepath.Base(i.Programs[0])
	files, err := i.archive(entrypoint, program)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: cmp.Or(i.Created, time.Unix(0, 0)).UTC()}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		Created:      created,
		OS:           platform.OS,
		Architecture: platform.Architecture,
		RootFS:       v1.RootFS{Type: "layers"},
		Config:       v1.Config{User: i.User, Entrypoint: []string{"/" + entrypoint}, Labels: i.Labels},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{Created: created, CreatedBy: entrypoint}})
}

// archive returns an archive of the image's files. They all are of the same time.
func (i *Image) archive(entrypoint, program string) ([]byte, error) {
	var files bytes.Buffer
	archive := tar.NewWriter(&files)
	write := func(name string, content []byte, mode int64) error {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		_, err := archive.Write(content)
		return err
	}
	add := func(name, path string, mode int64) error {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return write(name, content, mode)
	}
	if err := add(entrypoint, program, 0o555); err != nil {
		return nil, err
	}
	if user, group, ok := strings.Cut(i.User, ":"); ok {
		if err := write("etc/passwd", fmt.Appendf(nil, "nonroot:x:%s:%s::/:/sbin/nologin\n", user, group), 0o444); err != nil {
			return nil, err
		}
	}
	if i.Files != "" {
		err := filepath.WalkDir(i.Files, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			name, err := filepath.Rel(i.Files, path)
			if err != nil {
				return err
			}
			return add(filepath.ToSlash(name), path, 0o444)
		})
		if err != nil {
			return nil, err
		}
	}
	err := archive.Close()
	return files.Bytes(), err
}
