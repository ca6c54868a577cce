// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes/fake"
	testingclock "k8s.io/utils/clock/testing"
)

// small is a DaemonSet in which line 6 is to be replaced.
const small = `apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: a
spec:
  minReadySeconds: 1
  template:
    spec:
      containers:
      - name: main
        env: []
`

// What kubectl reads is read, each object and each field with its line, and what cannot be read does not hide
// the others.
func TestDocuments(t *testing.T) {
	t.Parallel()
	minified := `{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"a"}}`
	little := []byte("\xff\xfe")
	for _, unit := range utf16.Encode([]rune(small)) {
		little = append(little, byte(unit), byte(unit>>8))
	}
	for name, tc := range map[string]struct {
		content string
		want    []string
	}{
		"nothing":                             {"", nil},
		"nothing but comments and separators": {"# comment\n\n---\n---\n# another\n--- # a third\n", nil},
		"what is no object":                   {"- a\n---\nb\n---\n5\n---\nreplicas: 1\n---\nkind: X\n---\nkind: {}\napiVersion: []\n", nil},
		"documents": {"# comment\n\n" + small + "---\n# nothing\n--- # comment\n" + strings.Replace(small, "name: a", "name: b", 1) + "---\n---\n{kind: Namespace, apiVersion: v1, metadata: {name: x}}", []string{
			"3 DaemonSet a", "17 DaemonSet b", "30 Namespace x",
		}},
		"lines that end as on Windows": {strings.ReplaceAll("---\n"+small+"---\n"+small, "\n", "\r\n"), []string{"2 DaemonSet a", "14 DaemonSet a"}},
		"UTF-8 with its mark":          {"\ufeff# comment\n---\n" + small, []string{"3 DaemonSet a"}},
		"UTF-16":                       {string(little), []string{"1 DaemonSet a"}},
		"a directive":                  {"%YAML 1.2\n---\n" + small, []string{"1 unread: error converting YAML to JSON: yaml: found incompatible YAML document", "3 DaemonSet a"}},
		"JSON with tabs":               {"{\n\t\"apiVersion\": \"apps/v1\",\n\t\"kind\": \"DaemonSet\",\n\t\"metadata\": {\"name\": \"a\"},\n\t\"x\": 1\n}\n", []string{"1 DaemonSet a", "  5 x: there is no such field"}},
		"JSON after JSON":              {minified + minified + "\n" + minified, []string{"1 DaemonSet a", "1 DaemonSet a", "1 DaemonSet a"}},
		"YAML after JSON":              {minified + "\n---\n" + small, []string{"1 DaemonSet a", "3 DaemonSet a"}},
		"a field twice in JSON":        {`{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"a"},"spec":{},` + "\n" + `"spec":{}}`, []string{"1 DaemonSet a", "  1 spec: it is there twice, and one of them is lost"}},
		"tabs in YAML":                 {"---\n" + small + "---\nkind: X\n\tapiVersion: v1\n", []string{"2 DaemonSet a", "14 unread: error converting YAML to JSON: yaml: line 2: found a tab character that violates indentation"}},
		"a template": {"{{ if .Values.agent }}\n" + small + "{{ end }}\n---\n" + small, []string{
			"1 unread: json: offset 2: invalid character '{' looking for beginning of object key string", "15 DaemonSet a",
		}},
		"a separator with text": {small + "---\n" + small + "--- {}\n" + small, []string{"1 DaemonSet a", "13 unread: invalid Yaml document separator: {}"}},
		"anchors": {strings.Replace(small, "minReadySeconds: 1", "minReadySeconds: &one 1\n  revisionHistoryLimit: *one\n  more: &more {x: 1}\n  other: *more", 1), []string{
			"1 DaemonSet a", "  8 spec.more: there is no such field", "  9 spec.other: there is no such field",
		}},
		"a field in an anchor": {strings.Replace(small, "env: []", "resources: &r\n          z: 1\n      - name: b\n        resources: *r", 1), []string{
			"1 DaemonSet a", "  12 spec.template.spec.containers[0].resources.z: there is no such field", "  12 spec.template.spec.containers[1].resources.z: there is no such field",
		}},
		"an anchor that contains itself": {"kind: DaemonSet\nx: &x [*x]\n", []string{"1 unread: error converting YAML to JSON: yaml: anchor 'x' value contains itself"}},
		"fields that do not exist": {"---\n" + strings.Replace(small, "minReadySeconds: 1", "minReadySecond: 1", 1) + "        image:\n        limits: {}\n", []string{
			"2 DaemonSet a", "  7 spec.minReadySecond: there is no such field", "  14 spec.template.spec.containers[0].limits: there is no such field",
		}},
		"a field twice": {strings.Replace(small, "minReadySeconds: 1", "minReadySeconds: 1\n  minReadySeconds: 2", 1), []string{
			"1 DaemonSet a", "  6 spec.minReadySeconds: it is there twice, and one of them is lost",
		}},
		"values of another type": {strings.Replace(strings.Replace(small, "env: []", "env:\n        - {name: X, value: \"1\"}\n        - name: Z\n          value: yes\n        resources: {limits: {cpu: 1e10Gi}}", 1), "minReadySeconds: 1", "minReadySeconds: soon", 1), []string{
			"1 DaemonSet a",
			"  6 spec.minReadySeconds: its type is string, and has to be int32",
			"  14 spec.template.spec.containers[0].env[1].value: its type is bool, and has to be string",
			"  15 spec.template.spec.containers[0].resources.limits.cpu: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
		}},
		"a map for a list": {strings.Replace(small, "- name: main\n        env: []", "  name: main", 1), []string{
			"1 DaemonSet a", "  10 spec.template.spec.containers: its type is object, and has to be []v1.Container",
		}},
		"an old version":          {strings.Replace(small, "apps/v1", "extensions/v1beta1", 1), []string{"1 DaemonSet a", "  1 apiVersion: since Kubernetes 1.16 no API server has DaemonSets of another version than apps/v1"}},
		"no version":              {strings.Replace(small, "apiVersion: apps/v1\n", "", 1), []string{"1 DaemonSet a", "  1 apiVersion: since Kubernetes 1.16 no API server has DaemonSets of another version than apps/v1"}},
		"a kind in small letters": {strings.Replace(small, "kind: DaemonSet", "kind: daemonset", 1), []string{"1 DaemonSet a", `  2 kind: there is no kind "daemonset": write DaemonSet`}},
		"a DaemonSet of others":   {strings.Replace(small, "apps/v1", "apps.kruise.io/v1beta1", 1), nil},
		"a list": {"kind: List\napiVersion: v1\nitems:\n- {kind: X, apiVersion: example.com/v1}\n- metadata: {name: no kind}\n- kind: DaemonSet\n  apiVersion: apps/v1\n  metadata: {name: a}\n  spec:\n    x: 1\n- kind: List\n  apiVersion: v1\n  items:\n  - {kind: DaemonSet, apiVersion: apps/v1, metadata: {name: b}, z: 1}\n- {kind: ConfigMap, apiVersion: v1, data: 5}\n", []string{
			"6 DaemonSet a", "  10 spec.x: there is no such field", "14 DaemonSet b", "  14 z: there is no such field",
			"15 unread: json: cannot unmarshal number into Go struct field ConfigMap.data of type map[string]string",
		}},
		"a list of one kind": {"kind: DaemonSetList\napiVersion: apps/v1\nitems:\n- metadata: {name: a}\n- metadata:\n    name: b\n    x: 1\n", []string{
			"4 DaemonSet a", "5 DaemonSet b", "  7 metadata.x: there is no such field",
		}},
		"a list of nothing":               {"kind: List\napiVersion: v1\nitems:\n---\nkind: AllowList\napiVersion: example.com/v1\nitems: {}\n", nil},
		"fields that others do not have":  {"kind: Deployment\napiVersion: apps/v1\nmetadata: {name: d}\nspec: {daemons: 1}\n", []string{"1 Deployment d"}},
		"others that cannot be read":      {"kind: ConfigMap\napiVersion: v1\ndata: {a: 5}\n---\n" + small, []string{"1 unread: json: cannot unmarshal number into Go struct field ConfigMap.data of type string", "5 DaemonSet a"}},
		"an object without an apiVersion": {"kind: Job\nmetadata: {name: x}\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &environment{IOStreams: genericiooptions.IOStreams{In: strings.NewReader(tc.content)}}
			documents, err := e.readDocuments(t.Context(), "-", maxManifest)
			if err != nil {
				t.Fatal(err)
			}
			var have []string
			for _, d := range documents {
				if d.unread != nil {
					have = append(have, fmt.Sprintf("%d unread: %v", d.lineOf(""), d.unread))
					continue
				}
				object, err := meta.Accessor(d.object)
				if err != nil {
					t.Fatal(err)
				}
				kind := fmt.Sprintf("%T", object)
				have = append(have, fmt.Sprintf("%d %s %s", d.lineOf(""), kind[strings.LastIndex(kind, ".")+1:], object.GetName()))
				for _, refusal := range d.refusals() {
					have = append(have, fmt.Sprintf("  %d %s: %s", d.lineOf(refusal.Field), refusal.Field, refusal.Message))
				}
			}
			if diff := cmp.Diff(tc.want, have); diff != "" {
				t.Errorf("(-want,+got):\n%s", diff)
			}
		})
	}
}

// Of what cannot be read, DaemonSets end lint with an error, and the others are told.
func TestUnreadDocuments(t *testing.T) {
	for name, tc := range map[string]struct {
		content, want string
		exit          bool
	}{
		"a DaemonSet":             {"kind: DaemonSet\n{{ if .Values.agent }}\n", "--- error\n-:1: error converting YAML", true},
		"an item of a list":       {`{"kind":"List","apiVersion":"v1","items":[{"kind":"DaemonSet","apiVersion":"apps/v1","metadata":{"name":"a"}},{"kind":"ConfigMap","apiVersion":"v1","data":5}]}`, "--- standard error\nThis is left out: -:1: json: cannot unmarshal number", false},
		"an object of other kind": {"kind: ConfigMap\napiVersion: v1\ndata: {a: 5}\n", "--- standard error\nThis is left out: -:1: json: cannot unmarshal number", false},
		"a template of others":    {"{{- if .Values.agent }}\nkind: Deployment\n{{ end }}\n", "--- standard error\nThis is left out: -:1: ", false},
	} {
		t.Run(name, func(t *testing.T) {
			text := run(t, nil, tc.content, "lint", "-f", "-", "--fail-on=none")
			if !strings.Contains(text, tc.want) || strings.Contains(text, "exit code 2") != tc.exit {
				t.Errorf("no %q, or not exit code 2 (%v), in\n%s", tc.want, tc.exit, text)
			}
		})
	}
}

// A value that cannot be read is one finding, and not missing as well.
func TestUnreadValueIsFoundOnce(t *testing.T) {
	manifest := strings.Replace(planned, "example/exporter,", "example/exporter, ports: [{containerPort: \"9100\"}],", 1)
	text := run(t, nil, manifest, "lint", "-f", "-")
	if strings.Count(text, "api-refuses") != 1 || !strings.Contains(text, "containerPort: its type\n      is string, and has to be int32") {
		t.Error(text)
	}
}

// Paths are read as kubectl reads them, and one that is not there does not hide the others.
func TestFindFiles(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for _, name := range []string{"a.yaml", "b.yml", "c.json", "d.txt", "[e].yaml", "deep/f.yaml"} {
		path := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for paths, want := range map[string][]string{
		"FOLDER":                        {"FOLDER/[e].yaml", "FOLDER/a.yaml", "FOLDER/b.yml", "FOLDER/c.json"},
		"-R FOLDER":                     {"FOLDER/[e].yaml", "FOLDER/a.yaml", "FOLDER/b.yml", "FOLDER/c.json", "FOLDER/deep/f.yaml"},
		"FOLDER/d.txt - https://x/?a=*": {"FOLDER/d.txt", "-", "https://x/?a=*"},
		"FOLDER/*.y*ml":                 {"FOLDER/[e].yaml", "FOLDER/a.yaml", "FOLDER/b.yml"},
		"FOLDER/[e].yaml":               {"FOLDER/[e].yaml"},
		"FOLDER/de*":                    {"FOLDER/deep/f.yaml"},
		"FOLDER/none FOLDER/a.yaml FOLDER/[": {
			"FOLDER/a.yaml", `the path "FOLDER/none" does not exist`, `the path "FOLDER/[" does not exist`,
		},
	} {
		paths, recursive := strings.CutPrefix(paths, "-R ")
		have, err := findFiles(strings.Fields(strings.ReplaceAll(paths, "FOLDER", folder)), recursive)
		if err != nil {
			have = append(have, strings.Split(err.Error(), "\n")...)
		}
		for n := range have {
			have[n] = strings.ReplaceAll(have[n], folder, "FOLDER")
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s (-want,+got):\n%s", paths, diff)
		}
	}
}

// A server that is in trouble is asked again, as kubectl does, and no source is read without end.
func TestSources(t *testing.T) {
	t.Parallel()
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		switch r.URL.Path {
		case "/late":
			if asked < 3 {
				w.WriteHeader(http.StatusBadGateway)
			}
			fmt.Fprint(w, "text")
		case "/down":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	for name, tc := range map[string]struct {
		path, want string
		asked      int
	}{
		"late":        {server.URL + "/late", "text", 3},
		"down":        {server.URL + "/down", server.URL + "/down: the server says 503 Service Unavailable", 3},
		"not there":   {server.URL + "/none", server.URL + "/none: the server says 404 Not Found", 1},
		"without end": {"-", "reading -: it has more than 1 MiB", 0},
		"no file":     {"none.yaml", "open none.yaml: no such file or directory", 0},
	} {
		clock := testingclock.NewFakeClock(now.Time)
		e := &environment{IOStreams: genericiooptions.IOStreams{In: endless{}}, clock: clock}
		asked = 0
		content, err := e.readFile(t.Context(), tc.path, 1<<20)
		have := string(content)
		if err != nil {
			have = err.Error()
		}
		if have != tc.want || asked != tc.asked || clock.Since(now.Time) != time.Duration(max(0, asked-1))*time.Second {
			t.Errorf("%s: %q after %d requests and %s, want %q after %d", name, have, asked, clock.Since(now.Time), tc.want, tc.asked)
		}
	}
}

// endless is a source that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// plan reads what lint reads, and does not plan what the API server would refuse.
func TestPlanSources(t *testing.T) {
	folder := t.TempDir()
	for name, content := range map[string]string{
		"agent.yaml": planned, "class.yaml": "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: agents}\nvalue: 5000\nglobalDefault: true\n",
		"kustomization.yaml": "resources: [agent.yaml]\nnamePrefix: node-\n",
		"refused/agent.yaml": strings.Replace(planned, "app: exporter}}\n", "app: exporter}}\n  x: 1\n", 1), "refused/kustomization.yaml": "resources: [agent.yaml]\n",
	} {
		path := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		args, stdin string
		want        []string
	}{
		"files":               {args: "-f " + folder + "/agent.yaml -f " + folder + "/class.yaml", want: []string{"DaemonSet default/exporter (new)", "Their priority is 5000", "kubectl diff -f " + folder + "/agent.yaml -f " + folder + "/class.yaml -n default\n"}},
		"a folder":            {args: "-f " + folder, want: []string{"DaemonSet default/exporter (new)", "Their priority is 5000", "kubectl diff -f " + folder + " -n default\n"}},
		"a folder of folders": {args: "-R -f " + folder, want: []string{"/refused/agent.yaml:13: the API server refuses it"}},
		"an overlay":          {args: "-k " + folder, want: []string{"DaemonSet default/node-exporter (new)", "Their priority is 0", "kubectl diff -k " + folder + " -n default\n"}},
		"two ways":            {args: "-f - -k " + folder, want: []string{"name the files with the DaemonSet in one way: --filename, or --kustomize\n--- exit code 2"}},
		"what the API server refuses": {args: "-f -", stdin: strings.Replace(strings.Replace(planned, "app: exporter}}\n", "app: exporter}}\n  x: 1\n", 1), "cpu: 600m", "cpu: much", 1), want: []string{
			"-:18: the API server refuses it: spec.template.spec.containers[0].resources.requests.cpu: quantities must match", "-:13: the API server refuses it: spec.x: there is no such field\n", "--- exit code 2",
		}},
		"what of an overlay the API server refuses": {args: "-k " + folder + "/refused", want: []string{folder + "/refused: the API server refuses it: spec.x: there is no such field\n--- exit code 2"}},
		"no DaemonSet": {args: "-f -", stdin: "kind: Namespace\napiVersion: v1\nmetadata: {name: x}\n", want: []string{"there is no DaemonSet of apps/v1 in what --filename or --kustomize names\n--- exit code 2"}},
	} {
		text := run(t, fake.NewClientset(world()...), tc.stdin, append([]string{"plan", "--dry-run-pod=false"}, strings.Fields(tc.args)...)...)
		for _, want := range tc.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", name, want, text)
			}
		}
	}
}

// DaemonSets of one file are compared with one another, those of two files are not.
func TestLintNeighbours(t *testing.T) {
	exporter := strings.Replace(planned, "example/exporter,", "example/exporter, ports: [{containerPort: 9100, hostPort: 9100}],", 1)
	other := strings.ReplaceAll(exporter, "name: exporter", "name: other")
	folder := t.TempDir()
	for name, content := range map[string]string{"a.yaml": exporter, "b.yaml": other, "both/both.yaml": exporter + "---\n" + other} {
		path := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		folder:           "0 errors, 0 warnings in 2 DaemonSets.\n",
		folder + "/both": "both.yaml:26: DaemonSet other\n  warning host-port-clash\n    line 35: spec.template.spec.containers[0].ports[0]: DaemonSet exporter has\n",
	} {
		if text := run(t, nil, "", "lint", "-f", path); !strings.Contains(text, want) {
			t.Errorf("%s: no %q in\n%s", path, want, text)
		}
	}
}

// FuzzDocuments checks what holds of any file: it does not panic, and all that is said of it is on a line that it has.
func FuzzDocuments(f *testing.F) {
	for _, content := range []string{
		small, "---\n" + planned + "---\n" + small, plannedFile, refusedManifest, "kind: List\napiVersion: v1\nitems: [{kind: DaemonSet, apiVersion: apps/v1, x: &x 1, x: *x}]\n",
		`{"kind":"DaemonSetList","apiVersion":"apps/v1","items":[null,{"spec":{"template":{"spec":{"containers":[5,null,{"ports":{}}]}}}}]}`, "{}{}", "--- x\n", "a: &a [*a]", "<<: {kind: DaemonSet}\napiVersion: apps/v1\n",
	} {
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content string) {
		lines := strings.Count(content, "\n") + 1
		for _, d := range decodeDocuments("x", []byte(content)) {
			at := []int{d.lineOf("")}
			for _, refusal := range d.refusals() {
				at = append(at, d.lineOf(refusal.Field))
			}
			if slices.Min(at) < 1 || slices.Max(at) > lines || d.unread == nil && d.object == nil {
				t.Errorf("lines %v of %d, object %v, %v", at, lines, d.object, d.unread)
			}
		}
	})
}
