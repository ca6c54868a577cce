// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	kubectl "k8s.io/cli-runtime/pkg/resource"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/pkg/lint/upstream"
	"everynode.dev/everynode/pkg/snapshot"
)

// The most that is read of a source. A request to the API server has 3 MiB, and the largest collections
// of CRDs have 5; a dump of 100,000 pods has about 1 GiB.
const (
	maxManifest = 64 << 20
	maxDump     = 4 << 30
)

// manifests name files as kubectl does.
type manifests struct{ kubectl.FilenameOptions }

func (m *manifests) addFlags(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&m.Filenames, "filename", "f", nil, "File, folder, pattern or URL with DaemonSets, - for the standard input. It may be given more than once.")
	flags.BoolVarP(&m.Recursive, "recursive", "R", false, "Look into the folders of folders, too.")
	flags.StringVarP(&m.Kustomize, "kustomize", "k", "", "Take what kustomize makes of this folder.")
}

// args are the flags again, for a command that is printed.
func (m *manifests) args() (args []string) {
	for _, file := range m.Filenames {
		args = append(args, "-f", file)
	}
	if m.Recursive {
		args = append(args, "-R")
	}
	if m.Kustomize != "" {
		args = append(args, "-k", m.Kustomize)
	}
	return args
}

// findFiles returns files, and the manifests in folders, as kubectl does, and with an error for some paths the
// others. The rest of kubectl's package cannot serve: it tells no lines, and ends a file at the first document
// that is broken.
func findFiles(paths []string, recursive bool) (files []string, err error) {
	for _, path := range paths {
		matches := []string{path}
		if path == "-" || isURL(path) {
			files = append(files, path)
			continue
		}
		if _, missing := os.Stat(path); errors.Is(missing, fs.ErrNotExist) {
			// A pattern that cannot be read matches nothing.
			if matches, _ = filepath.Glob(path); len(matches) == 0 {
				err = errors.Join(err, fmt.Errorf("the path %q does not exist", path))
			}
		}
		for _, match := range matches {
			visitors, unread := kubectl.ExpandPathsToFileVisitors(nil, match, recursive, kubectl.FileExtensions, nil)
			err = errors.Join(err, unread)
			for _, visitor := range visitors {
				if file, ok := visitor.(*kubectl.FileVisitor); ok {
					files = append(files, file.Path)
				}
			}
		}
	}
	return files, err
}

func isURL(path string) bool {
	return strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://")
}

// readManifests returns the objects in files, or what kustomize makes of a folder. With an error for some of
// them, it returns the others. What cannot be read and is no DaemonSet is told, and is no error.
func (e *environment) readManifests(ctx context.Context, m *manifests) (documents []document, err error) {
	if m.Kustomize != "" {
		documents, err = m.kustomized()
	}
	files, missing := findFiles(m.Filenames, m.Recursive)
	err = errors.Join(err, missing)
	for _, file := range files {
		found, unread := e.readDocuments(ctx, file, maxManifest)
		documents, err = append(documents, found...), errors.Join(err, unread)
	}
	documents = slices.DeleteFunc(documents, func(d document) bool {
		switch {
		case d.unread == nil:
		case !d.other && bytes.Contains(d.content, []byte(upstream.Kind.Kind)):
			err = errors.Join(err, d.problem())
		default:
			fmt.Fprintf(e.ErrOut, "This is left out: %v\n", d.problem())
		}
		return d.unread != nil
	})
	return documents, err
}

// kustomized returns the objects that kustomize makes of a folder. They have no lines in a file.
func (m *manifests) kustomized() (documents []document, err error) {
	made, err := kubectl.NewLocalBuilder().Unstructured().FilenameParam(false, &m.FilenameOptions).Do().Infos()
	for _, info := range made {
		content, invalid := json.Marshal(info.Object)
		p := &part{file: m.Kustomize, content: content}
		documents, err = append(documents, p.objects(content, "", schema.GroupVersionKind{})...), errors.Join(err, invalid)
	}
	return documents, err
}

// readDocuments returns the documents in a file, or in the standard input for "-". Lists are taken apart, and
// objects of kinds that client-go does not know are left out.
func (e *environment) readDocuments(ctx context.Context, path string, most int64) ([]document, error) {
	content, err := e.readFile(ctx, path, most)
	if err != nil {
		return nil, err
	}
	return decodeDocuments(path, content), nil
}

// readFile returns the content of a file as UTF-8.
func (e *environment) readFile(ctx context.Context, path string, most int64) ([]byte, error) {
	file, err := e.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(transform.NewReader(file, unicode.BOMOverride(unicode.UTF8.NewDecoder())), most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("it has more than %d MiB", most>>20)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return content, nil
}

func (e *environment) open(ctx context.Context, path string) (io.ReadCloser, error) {
	switch {
	case path == "-":
		return io.NopCloser(e.In), nil
	case !isURL(path):
		return os.Open(path)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, path, http.NoBody)
	if err != nil {
		return nil, err
	}
	// kubectl tries as often, with a function of its own that takes no context.
	for attempt := 1; ; attempt++ {
		response, err := (&http.Client{Timeout: time.Minute}).Do(request)
		if err == nil && response.StatusCode == http.StatusOK {
			return response.Body, nil
		}
		final := attempt == 3 || ctx.Err() != nil
		if err == nil {
			response.Body.Close()
			err = fmt.Errorf("%s: the server says %s", path, response.Status)
			final = final || response.StatusCode < http.StatusInternalServerError
		}
		if final {
			return nil, err
		}
		e.clock.Sleep(time.Second)
	}
}

// readFiles returns the cluster whose objects are in files and folders. An object that is
// in several of them counts once.
func (e *environment) readFiles(ctx context.Context, paths []string) (*snapshot.Cluster, error) {
	files, err := findFiles(paths, true)
	if err != nil {
		return nil, err
	}
	c, t := &snapshot.Cluster{}, &trimmer{noManagers: true}
	seen := sets.New[string]()
	for _, path := range files {
		documents, err := e.readDocuments(ctx, path, maxDump)
		// Folders have other files, too.
		named := slices.Contains(paths, path)
		if err != nil && named {
			return nil, err
		}
		for _, document := range documents {
			if document.unread != nil && named {
				return nil, document.problem()
			}
			object, err := meta.Accessor(document.object)
			// A document without metadata is of no kind that is looked at.
			if err != nil {
				continue
			}
			key := fmt.Sprintf("%T %s/%s", object, object.GetNamespace(), object.GetName())
			if seen.Has(key) {
				continue
			}
			seen.Insert(key)
			t.trim(document.object)
			c.Add(document.object)
			e.atLeast(document.object, object.GetCreationTimestamp())
		}
	}
	if len(c.DaemonSets)+len(c.Nodes) == 0 {
		return nil, fmt.Errorf("%s: there are no nodes and no DaemonSets in it", strings.Join(paths, ", "))
	}
	c.Unread = []string{fmt.Sprintf("admission, and what else the files don't tell: they have %s, %s, %s and %s.", explain.Count(len(c.Nodes), "node"),
		explain.Count(len(c.DaemonSets), "DaemonSet"), explain.Count(len(c.Pods), "pod"), explain.Count(len(c.Events), "event"))}
	c.ClaimsUnread = len(c.Claims) == 0
	if c.NodesUnread = len(c.Nodes) == 0; c.NodesUnread {
		c.Partial = true
		c.MakeUpNodes()
	}
	return c, nil
}

// atLeast moves asOf to the latest time in an object, because the files were written after it.
func (e *environment) atLeast(object runtime.Object, created metav1.Time) {
	times := []metav1.Time{created}
	switch object := object.(type) {
	case *corev1.Event:
		times = append(times, object.LastTimestamp, metav1.Time(object.EventTime))
	case *corev1.Node:
		for _, condition := range object.Status.Conditions {
			times = append(times, condition.LastHeartbeatTime, condition.LastTransitionTime)
		}
	case *corev1.Pod:
		for _, condition := range object.Status.Conditions {
			times = append(times, condition.LastTransitionTime)
		}
	}
	for _, at := range times {
		if at.After(e.asOf) {
			e.asOf = at.Time
		}
	}
}
