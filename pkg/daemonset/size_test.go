// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"everynode.dev/everynode/pkg/daemonset"
	"everynode.dev/everynode/pkg/daemonset/daemonsettest"
)

func TestParseSizes(t *testing.T) {
	tests := map[string]struct {
		value   string
		wantErr string
	}{
		"shares and limits":              {`{"a": {"cpu": "2%", "memory": "0.001%", "ephemeral-storage": "100%", "min": {"cpu": "50m"}, "max": {"cpu": 1}, "step": {"memory": "64Mi"}}}`, ""},
		"several containers":             {`{"a": {"cpu": "2%"}, "b": {"memory": "33.3%"}}`, ""},
		"no JSON":                        {`a: 2%`, "parsing a: 2%: invalid character"},
		"nothing":                        {``, "unexpected end of JSON input"},
		"no container":                   {`{}`, "no container is named"},
		"null":                           {`null`, "no container is named"},
		"a container without a share":    {`{"a": {"min": {"cpu": "50m"}}}`, "container a: nothing is sized"},
		"an unknown resource":            {`{"a": {"example.com/gpu": "2%"}}`, `unknown field "a.example.com/gpu"`},
		"a resource twice":               {`{"a": {"cpu": "2%", "cpu": "3%"}}`, `duplicate field "a.cpu"`},
		"a container twice":              {`{"a": {"cpu": "2%"}, "a": {"cpu": "3%"}}`, `duplicate field "a"`},
		"a number":                       {`{"a": {"cpu": 2}}`, `2 is not a percentage in quotes`},
		"an amount":                      {`{"a": {"cpu": "100m"}}`, `"100m" is not a percentage`},
		"nothing of it":                  {`{"a": {"cpu": "0%"}}`, `"0%" is not a percentage`},
		"less than nothing":              {`{"a": {"cpu": "-2%"}}`, `"-2%" is not a percentage`},
		"more than everything":           {`{"a": {"cpu": "100.001%"}}`, `"100.001%" is not a percentage`},
		"too many decimals":              {`{"a": {"cpu": "1.0001%"}}`, `"1.0001%" is not a percentage`},
		"too large to be a number":       {`{"a": {"cpu": "99999999999999999999%"}}`, "is not a percentage"},
		"a limit that is no amount":      {`{"a": {"cpu": "2%", "max": {"cpu": "much"}}}`, "quantities must match the regular expression"},
		"a limit of something else":      {`{"a": {"cpu": "2%", "max": {"memory": "1Gi"}}}`, "container a: max.memory has no percentage of memory to limit"},
		"a limit of nothing":             {`{"a": {"cpu": "2%", "max": {"cpu": "0"}}}`, "container a: max.cpu is 0, has to be more than 0"},
		"a negative step":                {`{"a": {"cpu": "2%", "step": {"cpu": "-10m"}}}`, "container a: step.cpu is -10m, has to be more than 0"},
		"limits that exclude each other": {`{"a": {"cpu": "2%", "min": {"cpu": "2"}, "max": {"cpu": "1"}}}`, "container a: min.cpu is 2, more than max.cpu, which is 1"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := daemonset.ParseSizes(tc.value)
			if tc.wantErr == "" && err == nil {
				return
			}
			if tc.wantErr == "" || err == nil || !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("error is %v, want %q", err, tc.wantErr)
			}
		})
	}
}

func TestSizesApply(t *testing.T) {
	type resources = map[corev1.ResourceName]string
	const small, medium, large = "2", "8", "64"
	tests := map[string]struct {
		sizes            string
		requests, limits resources
		cpu              string
		want             string
	}{
		"2 % of a small node is less than the floor":       {`{"main": {"cpu": "2%", "min": {"cpu": "50m"}, "max": {"cpu": "1"}}}`, nil, nil, small, `{"requests":{"cpu":"50m"}}`},
		"2 % of a medium node":                             {`{"main": {"cpu": "2%", "min": {"cpu": "50m"}, "max": {"cpu": "1"}}}`, nil, nil, medium, `{"requests":{"cpu":"160m"}}`},
		"2 % of a large node is more than the ceiling":     {`{"main": {"cpu": "2%", "min": {"cpu": "50m"}, "max": {"cpu": "1"}}}`, nil, nil, large, `{"requests":{"cpu":"1"}}`},
		"a share rounds up to a step":                      {`{"main": {"cpu": "1.33%"}}`, nil, nil, medium, `{"requests":{"cpu":"110m"}}`},
		"a step of one's own":                              {`{"main": {"cpu": "1.33%", "step": {"cpu": "100m"}}}`, nil, nil, medium, `{"requests":{"cpu":"200m"}}`},
		"memory rounds up to 16Mi":                         {`{"main": {"memory": "1%"}}`, nil, nil, medium, `{"requests":{"memory":"176Mi"}}`},
		"other requests stay":                              {`{"main": {"cpu": "2%"}}`, resources{"cpu": "1", "memory": "1Gi"}, nil, medium, `{"requests":{"cpu":"160m","memory":"1Gi"}}`},
		"a limit keeps its ratio":                          {`{"main": {"cpu": "2%"}}`, resources{"cpu": "100m"}, resources{"cpu": "250m"}, medium, `{"limits":{"cpu":"400m"},"requests":{"cpu":"160m"}}`},
		"a limit like the request stays like it":           {`{"main": {"cpu": "2%"}}`, resources{"cpu": "100m"}, resources{"cpu": "100m"}, medium, `{"limits":{"cpu":"160m"},"requests":{"cpu":"160m"}}`},
		"a limit without a request is the request":         {`{"main": {"cpu": "2%"}}`, nil, resources{"cpu": "1"}, medium, `{"limits":{"cpu":"160m"},"requests":{"cpu":"160m"}}`},
		"a limit without a ratio stays":                    {`{"main": {"cpu": "2%"}}`, resources{"cpu": "0"}, resources{"cpu": "1"}, medium, `{"limits":{"cpu":"1"},"requests":{"cpu":"160m"}}`},
		"a limit without a ratio that is not enough":       {`{"main": {"cpu": "2%"}}`, resources{"cpu": "0"}, resources{"cpu": "100m"}, medium, `{"limits":{"cpu":"160m"},"requests":{"cpu":"160m"}}`},
		"a limit beyond all numbers":                       {`{"main": {"memory": "100%"}}`, resources{"memory": "1"}, resources{"memory": "7Ei"}, medium, `{"limits":{"memory":"9223372036854775807"},"requests":{"memory":"16Gi"}}`},
		"the limit of something else stays":                {`{"main": {"cpu": "2%"}}`, nil, resources{"memory": "1Gi"}, medium, `{"limits":{"memory":"1Gi"},"requests":{"cpu":"160m"}}`},
		"another container":                                {`{"other": {"cpu": "2%"}}`, resources{"cpu": "1"}, nil, medium, `{"requests":{"cpu":"1"}}`},
		"a node that does not say what it has":             {`{"main": {"ephemeral-storage": "2%"}}`, resources{"cpu": "1"}, nil, medium, `{"requests":{"cpu":"1"}}`},
		"a node that says that it has nothing of the kind": {`{"main": {"cpu": "2%", "min": {"cpu": "50m"}}}`, nil, nil, "0", `{"requests":{"cpu":"50m"}}`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			sizes, err := daemonset.ParseSizes(tc.sizes)
			if err != nil {
				t.Fatal(err)
			}
			spec := &st.MakePod().Obj().Spec
			spec.Containers = []corev1.Container{{Name: "main"}}
			spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list(tc.requests), Limits: list(tc.limits)}
			node := st.MakeNode().Capacity(resources{"cpu": tc.cpu, "memory": "16Gi"}).Obj()
			sizes.Apply(spec, node.Status.Allocatable)
			got, err := json.Marshal(spec.Containers[0].Resources)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("resources (-want,+got):\n%s", diff)
			}
		})
	}

	t.Run("a pod with resources of its own stays as it is", func(t *testing.T) {
		sizes, err := daemonset.ParseSizes(`{"main": {"cpu": "2%"}}`)
		if err != nil {
			t.Fatal(err)
		}
		spec := &corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}, Resources: &corev1.ResourceRequirements{Requests: list(resources{"cpu": "1m"})}}
		sizes.Apply(spec, list(resources{"cpu": "8"}))
		if len(spec.Containers[0].Resources.Requests) > 0 {
			t.Errorf("the container requests %v", spec.Containers[0].Resources.Requests)
		}
	})
}

func list(amounts map[corev1.ResourceName]string) corev1.ResourceList {
	return daemonsettest.Make("").Requests(amounts).Obj().Spec.Template.Spec.Containers[0].Resources.Requests
}

// What is held for a missing pod is what the pod will ask for.
func TestNeedsFollowSizes(t *testing.T) {
	type resources = map[corev1.ResourceName]string
	ds := daemonset.New(daemonsettest.Make("agent").Requests(resources{"cpu": "1"}).
		Annotation(daemonset.ResourcesAnnotation, `{"main": {"cpu": "2%"}}`).Obj(), classes)
	for cpu, want := range map[string]int64{"2": 40, "8": 160, "64": 1280} {
		if got := ds.NeedsOn(st.MakeNode().Capacity(resources{"cpu": cpu}).Obj()).Resources.MilliCPU; got != want {
			t.Errorf("a node of %s cores: %dm, want %dm", cpu, got, want)
		}
	}
	sized := daemonsettest.Make("agent").Annotation(daemonset.ResourcesAnnotation, `{"main": {"cpu": "2%"}}`).Obj()
	fixed := daemonsettest.Make("fixed").PriorityClass("high").Requests(resources{"cpu": "1"}).Obj()
	set := daemonset.NewSet(nil, []*appsv1.DaemonSet{sized, fixed}, classes)
	bounds := daemonset.NewBounds(set, list(resources{"cpu": "64", "pods": "110"}))
	got := map[int32]int64{}
	for _, priority := range []int32{1000, 0} {
		got[priority] = bounds.MaxHeld(priority).Resources.MilliCPU
	}
	// The largest node bounds what sizes make of the pods.
	if diff := cmp.Diff(map[int32]int64{1000: 1000, 0: 2280}, got); diff != "" {
		t.Errorf("most CPU that is held, by priority (-want,+got):\n%s", diff)
	}
}

// For whatever sizes and pods: limits are not below requests, and to apply sizes
// again changes nothing.
func FuzzSizes(f *testing.F) {
	f.Add(`{"main": {"cpu": "2%", "memory": "1.5%", "min": {"cpu": "50m"}}}`, []byte("0123456789"), int64(8000))
	f.Add(`{"main": {"memory": "100%", "step": {"memory": "3"}}}`, []byte("z"), int64(1))
	f.Fuzz(func(t *testing.T, value string, data []byte, size int64) {
		sizes, err := daemonset.ParseSizes(value)
		if err != nil {
			return
		}
		spec := daemonsettest.NewChooser(data).Containers()
		for i := range spec.Containers {
			spec.Containers[i].Name = "main"
			fixLimits(&spec.Containers[i].Resources)
		}
		size = max(size, 0)
		allocatable := daemonset.Resources{MilliCPU: size, Memory: size, EphemeralStorage: size}.List()
		sizes.Apply(&spec, allocatable)
		for i := range spec.Containers {
			for name, limit := range spec.Containers[i].Resources.Limits {
				if request := spec.Containers[i].Resources.Requests[name]; limit.Cmp(request) < 0 {
					t.Errorf("limit %s of %s is below the request, %s", limit.String(), name, request.String())
				}
			}
		}
		again := spec.DeepCopy()
		sizes.Apply(again, allocatable)
		if !equality.Semantic.DeepEqual(&spec, again) {
			t.Errorf("applied again, it differs:\n%s", cmp.Diff(&spec, again))
		}
	})
}

// fixLimits makes resources such as the API server would admit.
func fixLimits(resources *corev1.ResourceRequirements) {
	for name, limit := range resources.Limits {
		if request, ok := resources.Requests[name]; ok && request.Cmp(limit) > 0 {
			resources.Requests[name] = limit
		}
	}
}
