// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes/scheme"

	"everynode.dev/everynode/pkg/explain"
)

// strict refuses fields that do not exist, as kubectl apply does.
var strict = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// lenient accepts unknown fields: the files may come from a cluster of another version.
var lenient = scheme.Codecs.UniversalDeserializer()

// document is an object of a file, and where it is there.
type document struct {
	object runtime.Object
	file   string
	part
}

// fieldParts are the names, keys and numbers in the path of a field.
var fieldParts = regexp.MustCompile(`[^.\[\]]+|\[[^\]]*\]`)

// lineOf returns the line of a field, or of the nearest field above it that is there.
func (d *document) lineOf(path string) int {
	var root yaml.Node
	if yaml.Unmarshal(d.content, &root) != nil || len(root.Content) == 0 {
		return d.line
	}
	node, line := root.Content[0], root.Content[0].Line
	for _, name := range fieldParts.FindAllString(path, -1) {
		next := child(node, strings.Trim(name, "[]"))
		if next == nil {
			break
		}
		node, line = next, next.Line
	}
	return d.start + line - 1
}

// child returns the value of a key, or the item of a number; nil if there is none.
func child(node *yaml.Node, name string) *yaml.Node {
	number, err := strconv.Atoi(name)
	if node.Kind == yaml.SequenceNode && err == nil && number < len(node.Content) {
		return node.Content[number]
	}
	for n := 0; node.Kind == yaml.MappingNode && n+1 < len(node.Content); n += 2 {
		if node.Content[n].Value == name {
			return node.Content[n+1]
		}
	}
	return nil
}

// findFiles returns files, and the manifests in folders. With recursive, folders in folders count, too.
func findFiles(paths []string, recursive bool) ([]string, error) {
	var files []string
	for _, root := range paths {
		if root == "-" || isURL(root) {
			files = append(files, root)
			continue
		}
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && path != root && !recursive:
				return filepath.SkipDir
			case !entry.IsDir() && (path == root || slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path))):
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// readDocuments returns the objects in a file, or in the standard input for "-". Lists
// are taken apart, and objects of kinds that client-go does not know are left out. With an
// error for some of the documents, it returns the others.
func (e *environment) readDocuments(ctx context.Context, path string, decoder runtime.Decoder) ([]document, error) {
	content, err := e.readFile(ctx, path)
	if err != nil {
		return nil, err
	}
	return decodeDocuments(content, path, decoder)
}

func decodeDocuments(content []byte, path string, decoder runtime.Decoder) (documents []document, err error) {
	for _, part := range splitDocuments(content) {
		objects, unread := decodeObject(part.content, decoder)
		if unread != nil {
			err = errors.Join(err, fmt.Errorf("%s:%d: %w", path, part.line, unread))
		}
		for _, object := range objects {
			documents = append(documents, document{object, path, part})
		}
	}
	return documents, err
}

// kustomized returns the objects that kubectl makes of a folder. They have no lines in a file.
func kustomized(ctx context.Context, folder string) ([]document, error) {
	content, err := exec.CommandContext(ctx, "kubectl", "kustomize", folder).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = errors.New(string(bytes.TrimSpace(exit.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("kubectl kustomize %s: %w", folder, err)
	}
	documents, err := decodeDocuments(content, folder, strict)
	for n := range documents {
		documents[n].part = part{}
	}
	return documents, err
}

func isURL(path string) bool {
	return strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://")
}

func (e *environment) readFile(ctx context.Context, path string) ([]byte, error) {
	if isURL(path) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, path, http.NoBody)
		if err != nil {
			return nil, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: the server says %s", path, response.Status)
		}
		return io.ReadAll(response.Body)
	}
	if path == "-" {
		content, err := io.ReadAll(e.In)
		if err != nil {
			return nil, fmt.Errorf("reading the standard input: %w", err)
		}
		return content, nil
	}
	return os.ReadFile(path)
}

// part is a document of a YAML file before it is decoded. JSON is a single one.
type part struct {
	content []byte
	// start is its first line, and line is the first line that is no comment.
	start, line int
}

// splitDocuments splits content at lines that begin with ---. Documents without
// anything in them are left out.
func splitDocuments(content []byte) []part {
	var parts []part
	var current part
	flush := func() {
		if current.line > 0 {
			parts = append(parts, current)
		}
		current = part{}
	}
	number := 0
	for line := range bytes.Lines(content) {
		number++
		if rest, ok := bytes.CutPrefix(line, []byte("---")); ok && len(bytes.TrimLeft(rest, " \t\r\n")) < len(rest) {
			flush()
			// Text after the dashes belongs to the document.
			line = rest
		}
		if len(current.content) == 0 {
			current.start = number
		}
		if text := bytes.TrimSpace(line); len(text) > 0 && text[0] != '#' && current.line == 0 {
			current.line = number
		}
		current.content = append(current.content, line...)
	}
	flush()
	return parts
}

func decodeObject(raw []byte, decoder runtime.Decoder) ([]runtime.Object, error) {
	object, kind, err := decoder.Decode(raw, nil, nil)
	if gone := kind != nil && kind.Kind == "DaemonSet" && kind.GroupVersion() != appsv1.SchemeGroupVersion; gone {
		return nil, fmt.Errorf("no API server takes a DaemonSet of %s since Kubernetes 1.16: write apiVersion apps/v1", kind.GroupVersion())
	}
	// What has no kind is no object of Kubernetes.
	if runtime.IsNotRegisteredError(err) || runtime.IsMissingKind(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, ok := object.(*corev1.List)
	switch {
	case !ok && meta.IsListType(object):
		return meta.ExtractList(object)
	case !ok:
		return []runtime.Object{object}, nil
	}
	var objects []runtime.Object
	for n := range list.Items {
		decoded, err := decodeObject(list.Items[n].Raw, decoder)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", n, err)
		}
		objects = append(objects, decoded...)
	}
	return objects, nil
}

// readDaemonSets returns the DaemonSets of a file and the other objects beside them, those
// without a namespace in the given one.
func (e *environment) readDaemonSets(ctx context.Context, path, namespace string) (daemonSets []*appsv1.DaemonSet, others []runtime.Object, err error) {
	documents, err := e.readDocuments(ctx, path, strict)
	if err != nil {
		return nil, nil, err
	}
	for _, document := range documents {
		switch object := document.object.(type) {
		case *appsv1.DaemonSet:
			object.Namespace = cmp.Or(object.Namespace, namespace)
			daemonSets = append(daemonSets, object)
			continue
		case *corev1.ResourceQuota, *corev1.LimitRange:
			limits := object.(metav1.Object)
			limits.SetNamespace(cmp.Or(limits.GetNamespace(), namespace))
		}
		others = append(others, document.object)
	}
	if len(daemonSets) == 0 {
		return nil, nil, fmt.Errorf("%s: there is no DaemonSet of apps/v1 in it", path)
	}
	return daemonSets, others, nil
}

// readFiles returns the cluster whose objects are in files and folders. An object that is
// in several of them counts once.
func (e *environment) readFiles(ctx context.Context, paths []string) (*explain.Cluster, error) {
	files, err := findFiles(paths, true)
	if err != nil {
		return nil, err
	}
	c, t := &explain.Cluster{}, &trimmer{noManagers: true}
	seen := sets.New[string]()
	for _, path := range files {
		documents, err := e.readDocuments(ctx, path, lenient)
		// Folders have other files, too.
		if err != nil && slices.Contains(paths, path) {
			return nil, err
		}
		for _, document := range documents {
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
