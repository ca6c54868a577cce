// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a container image of one static program.
type Image struct {
	// Reference is its full name ("localhost/pause:1").
	Reference string
	// Program is the path of the program, which is the image's entry point.
	Program string
	// User is the numeric user, and group if wanted, that it runs as. Default: root.
	User string
}

// Write writes the image to a file, as an archive of an OCI image layout
// (https://github.com/opencontainers/image-spec/blob/main/image-layout.md). The
// same program gives the same file.
func (i Image) Write(path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	archive := tar.NewWriter(file)
	if err := i.writeLayout(archive); err != nil {
		return fmt.Errorf("image %s: %w", i.Reference, err)
	}
	return archive.Close()
}

func (i Image) writeLayout(archive *tar.Writer) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	blob := func(mediaType string, content []byte) (ocispec.Descriptor, error) {
		sum := digest.FromBytes(content)
		name := filepath.Join(ocispec.ImageBlobsDir, sum.Algorithm().String(), sum.Encoded())
		return ocispec.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(content))}, writeFile(archive, name, content, 0o444)
	}
	object := func(mediaType string, content any) (ocispec.Descriptor, error) {
		encoded, err := json.Marshal(content)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		return blob(mediaType, encoded)
	}
	layerBlob, err := blob(ocispec.MediaTypeImageLayer, layer)
	if err != nil {
		return err
	}
	config, err := object(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   ocispec.ImageConfig{User: i.User, Entrypoint: []string{"/" + filepath.Base(i.Program)}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layerBlob.Digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := object(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    []ocispec.Descriptor{layerBlob},
	})
	if err != nil {
		return err
	}
	// containerd looks for the full name here; the specification knows only tags.
	manifest.Annotations = map[string]string{"io.containerd.image.name": i.Reference}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{manifest},
	})
	if err != nil {
		return err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return errors.Join(
		writeFile(archive, ocispec.ImageIndexFile, index, 0o444),
		writeFile(archive, ocispec.ImageLayoutFile, layout, 0o444),
	)
}

// layer returns an archive of the image's only file.
func (i Image) layer() ([]byte, error) {
	program, err := os.ReadFile(i.Program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	if err := writeFile(archive, filepath.Base(i.Program), program, 0o755); err != nil {
		return nil, err
	}
	err = archive.Close()
	return layer.Bytes(), err
}

func writeFile(archive *tar.Writer, name string, content []byte, mode int64) error {
	header := &tar.Header{Name: name, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}
