// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"everynode.dev/everynode/pkg/daemonset"
)

// Informers returns informers that know the objects of c and never learn of others: what
// scheduler plugins read from. Of the pods they know those of DaemonSets: plugins read the
// others from a scheduler's own snapshot.
func (c *Cluster) Informers() (informers.SharedInformerFactory, error) {
	cluster := *c
	cluster.Pods = slices.DeleteFunc(slices.Clone(cluster.Pods), func(pod *corev1.Pod) bool { return daemonset.OwnerOf(pod) == nil })
	cluster.Events = nil
	factory := informers.NewSharedInformerFactory(nil, 0)
	for _, list := range reflect.ValueOf(cluster).Fields() {
		if list.Kind() != reflect.Slice || list.Type().Elem().Kind() != reflect.Pointer {
			continue
		}
		example := reflect.New(list.Type().Elem().Elem()).Interface().(runtime.Object)
		informer := &still{cache.NewSharedIndexInformer(nil, example, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})}
		for n := range list.Len() {
			if err := informer.GetIndexer().Add(list.Index(n).Interface()); err != nil {
				return nil, fmt.Errorf("indexing a %T: %w", example, err)
			}
		}
		factory.InformerFor(example, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer { return informer })
	}
	return factory, nil
}

// still is an informer that is not run. It has all objects from the start.
type still struct {
	cache.SharedIndexInformer
}

// AddEventHandler tells handler of every object before it returns.
func (s *still) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	for _, object := range s.GetIndexer().List() {
		handler.OnAdd(object, true)
	}
	return told{}, nil
}

// HasSynced says that nothing more is to come.
func (s *still) HasSynced() bool {
	return true
}

// told is the registration of a handler that knows every object.
type told struct{}

func (told) HasSynced() bool                     { return true }
func (told) HasSyncedChecker() cache.DoneChecker { return told{} }
func (told) Name() string                        { return "objects" }
func (told) Done() <-chan struct{}               { return closed }

var closed = func() chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}()
