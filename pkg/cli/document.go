// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"everynode.dev/everynode/pkg/lint"
	"everynode.dev/everynode/pkg/lint/upstream"
)

// lenient accepts unknown fields: the files may come from a cluster of another version.
var lenient = scheme.Codecs.UniversalDeserializer()

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
