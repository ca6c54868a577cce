// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// images makes the container images of everynode from its programs. make images runs it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"everynode.dev/everynode/pkg/image"
)

const megabyte = 1_000_000

// programs are what there are images of, and what nodes may have to load of each: more
// than these megabytes, compressed, is taken for a mistake.
var programs = []struct {
	name, description string
	limit             int64
}{
	{name: "everynode-scheduler", description: "kube-scheduler with plugins for DaemonSets", limit: 100},
	{name: "everynode-webhook", description: "Admission webhook for DaemonSets and their pods", limit: 40},
	{name: "kubectl-everynode", description: "Says why DaemonSet pods are not where they should be", limit: 40},
}

var architectures = []string{"amd64", "arm64"}

type options struct {
	programs, files, out, repository, version, revision string
	created                                             int64
}

func main() {
	var o options
	flag.StringVar(&o.programs, "programs", "", "folder with the programs, in linux/amd64 and linux/arm64")
	flag.StringVar(&o.files, "files", "", "folder with further files of each image, if any")
	flag.StringVar(&o.out, "out", "", "folder for the images, which are replaced there")
	flag.StringVar(&o.repository, "repository", "localhost", "what stands before the images' names")
	flag.StringVar(&o.version, "version", "", "version of everynode, which is the images' tag")
	flag.StringVar(&o.revision, "revision", "", "commit that they are built from")
	flag.Int64Var(&o.created, "created", 0, "time of that commit, in seconds since 1970")
	flag.Parse()
	if err := run(os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, o options) error {
	if o.programs == "" || o.out == "" || o.version == "" {
		return errors.New("give it -programs, -out and -version, or run make images, which does")
	}
	for _, program := range programs {
		i := image.Image{
			Files:     o.files,
			Reference: o.repository + "/" + program.name + ":" + o.version,
			// Its number is all that a kubelet can check runAsNonRoot by.
			User:    "65532:65532",
			Created: time.Unix(o.created, 0),
			Labels: map[string]string{
				"org.opencontainers.image.title":       program.name,
				"org.opencontainers.image.description": program.description,
				"org.opencontainers.image.version":     o.version,
				"org.opencontainers.image.revision":    o.revision,
				"org.opencontainers.image.source":      "https://everynode.dev/everynode",
				"org.opencontainers.image.licenses":    "Apache-2.0",
			},
		}
		for _, architecture := range architectures {
			i.Programs = append(i.Programs, filepath.Join(o.programs, "linux", architecture, program.name))
		}
		dir := filepath.Join(o.out, program.name)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		index, err := i.WriteLayout(dir)
		if err != nil {
			return err
		}
		if err := report(out, program.name, index, program.limit*megabyte); err != nil {
			return err
		}
	}
	return nil
}

// report prints an image's digest, and what a node of each architecture loads.
func report(out io.Writer, name string, index v1.ImageIndex, limit int64) error {
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%-20s %s", name, digest)
	for _, descriptor := range manifest.Manifests {
		one, err := index.Image(descriptor.Digest)
		if err != nil {
			return err
		}
		layers, err := one.Layers()
		if err != nil {
			return err
		}
		var size int64
		for _, layer := range layers {
			compressed, err := layer.Size()
			if err != nil {
				return err
			}
			size += compressed
		}
		fmt.Fprintf(out, "  %s %.1f MB", descriptor.Platform.Architecture, float64(size)/megabyte)
		if size > limit {
			return fmt.Errorf("%s for %s has %d MB, more than %d", name, descriptor.Platform, size/megabyte, limit/megabyte)
		}
	}
	fmt.Fprintln(out)
	return nil
}
