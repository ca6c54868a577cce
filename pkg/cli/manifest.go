// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kubectl "k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes/scheme"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/pkg/lint"
	"everynode.dev/everynode/pkg/lint/upstream"
)

// lenient accepts unknown fields: the files may come from a cluster of another version.
var lenient = scheme.Codecs.UniversalDeserializer()

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

// document is an object of a file, and where it is there.
type document struct {
	*part
	object runtime.Object
	// path leads to the object if it is in a list: "items[1].".
	path string
	// unread says why there is no object, and other that it would be no DaemonSet.
	unread error
	other  bool
	// refused is why the API server would not read it.
	refused []lint.Finding
}

// part is a document of a file before it is decoded.
type part struct {
	file    string
	content []byte
	// start is its first line, and line is the first line that is no comment; 0 if it is not in a file.
	start, line int
	// parsed is its content once a line has been looked for.
	parsed *yaml.Node
}

// parse returns the content with its lines, or an empty node.
func (p *part) parse() *yaml.Node {
	if p.parsed == nil {
		var root yaml.Node
		p.parsed = &root
		if yaml.Unmarshal(p.content, &root) == nil && len(root.Content) > 0 {
			p.parsed = root.Content[0]
		}
	}
	return p.parsed
}

// fieldParts are the names, keys and numbers in the path of a field.
var fieldParts = regexp.MustCompile(`[^.\[\]]+|\[[^\]]*\]`)

// find returns the node of a field, or of the nearest field above it that is there.
func (p *part) find(path string) *yaml.Node {
	node := p.parse()
	for _, name := range fieldParts.FindAllString(path, -1) {
		next := child(node, strings.Trim(name, "[]"))
		if next == nil {
			break
		}
		node = next
	}
	return node
}

// lineOf returns the line of a field of the object, or of the nearest field above it that is there.
func (d *document) lineOf(path string) int {
	if node := d.find(d.path + path); d.line > 0 && node.Line > 0 {
		return d.start + node.Line - 1
	}
	return d.line
}

// position returns where a field of the object is, as editors write it.
func (d *document) position(path string) string {
	if line := d.lineOf(path); line > 0 {
		return fmt.Sprintf("%s:%d", d.file, line)
	}
	return d.file
}

// problem says where the document is that cannot be read, and why.
func (d *document) problem() error {
	return fmt.Errorf("%s: %w", d.position(""), d.unread)
}

// refusals are why the API server would not read a DaemonSet, with fields that it has twice.
func (d *document) refusals() []lint.Finding {
	findings := slices.Clone(d.refused)
	for _, path := range repeated(d.find(d.path), "") {
		findings = append(findings, upstream.Refusal(path, "it is there twice, and one of them is lost"))
	}
	return findings
}

// child returns the value of a key, or the item of a number; nil if there is none.
func child(node *yaml.Node, name string) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
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

// repeated returns the paths of keys that a mapping has more than once.
func repeated(node *yaml.Node, path string) (paths []string) {
	seen := sets.New[string]()
	for n, item := range node.Content {
		at := fmt.Sprintf("%s[%d]", path, n)
		if node.Kind == yaml.MappingNode {
			if n%2 == 0 {
				continue
			}
			key := node.Content[n-1].Value
			if at = strings.TrimPrefix(path+"."+key, "."); seen.Has(key) {
				paths = append(paths, at)
			}
			seen.Insert(key)
		}
		paths = append(paths, repeated(item, at)...)
	}
	return paths
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

// firstText ends with the first character of a document that is no space, separator or comment.
var (
	firstText = regexp.MustCompile(`(?m)^\s*(?:[^#\s-]|-{1,2}[^-])`)
	newline   = []byte("\n")
)

// decodeDocuments returns the documents of a file that are objects, and those that cannot be read. They are
// parted as kubectl parts them.
func decodeDocuments(file string, content []byte) (documents []document) {
	// A dump is large, and is not copied.
	if at := firstText.FindIndex(content); at != nil && json.Valid(content) {
		p := &part{file: file, content: content, start: 1, line: 1 + bytes.Count(content[:at[1]-1], newline)}
		return p.objects(content, "", schema.GroupVersionKind{})
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for start := 1; ; {
		text, err := reader.Read()
		switch at := firstText.FindIndex(text); {
		case errors.Is(err, io.EOF):
			return documents
		case err != nil:
			// kubectl reads no further, either.
			return append(documents, document{part: &part{file: file, content: content, start: start, line: start}, unread: err})
		case at != nil:
			p := &part{file: file, content: text, start: start, line: start + bytes.Count(text[:at[1]-1], newline)}
			documents = append(documents, p.documents()...)
		}
		start += bytes.Count(text, newline) + 1
	}
}

// documents returns the objects of a part, which in JSON may follow one another, or why they cannot be read.
func (p *part) documents() (documents []document) {
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(p.content), len(p.content))
	for {
		var object runtime.RawExtension
		switch err := decoder.Decode(&object); {
		case errors.Is(err, io.EOF):
			return documents
		case err != nil:
			return append(documents, document{part: p, unread: err})
		}
		documents = append(documents, p.objects(object.Raw, "", schema.GroupVersionKind{})...)
	}
}

// objects returns the object that content is, or those of a list, of that kind if it does not say.
func (p *part) objects(content []byte, path string, kind schema.GroupVersionKind) (documents []document) {
	var header struct {
		metav1.TypeMeta `json:",inline"`
		Items           []json.RawMessage `json:"items"`
	}
	// What has other types there is no object of Kubernetes.
	_ = json.Unmarshal(content, &header)
	if header.TypeMeta != (metav1.TypeMeta{}) {
		kind = header.GroupVersionKind()
	}
	d := document{part: p, path: path}
	switch item, list := strings.CutSuffix(kind.Kind, "List"); {
	case list:
		for n, content := range header.Items {
			documents = append(documents, p.objects(content, fmt.Sprintf("%sitems[%d].", path, n), kind.GroupVersion().WithKind(item))...)
		}
		return documents
	case upstream.IsDaemonSet(kind):
		d.object, d.refused, d.unread = upstream.Decode(content, kind)
	case kind.Kind == "" || kind.Version == "":
		return nil
	default:
		d.object, _, d.unread = lenient.Decode(content, &kind, nil)
		d.other = true
	}
	if runtime.IsNotRegisteredError(d.unread) {
		return nil
	}
	return []document{d}
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
