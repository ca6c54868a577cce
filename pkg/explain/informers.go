// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// newInformers returns informers that know the objects of cluster and never learn of
// others: what scheduler plugins read from. Of the pods they know daemonPods: plugins
// read the others from the snapshot.
func newInformers(cluster *Cluster, daemonPods []*corev1.Pod) (informers.SharedInformerFactory, error) {
	factory := informers.NewSharedInformerFactory(nil, 0)
	for _, err := range []error{
		fill(factory, cluster.Nodes),
		fill(factory, cluster.DaemonSets),
		fill(factory, daemonPods),
		fill(factory, cluster.Namespaces),
		fill(factory, cluster.PriorityClasses),
		fill(factory, cluster.Budgets),
		fill(factory, cluster.Claims),
		fill(factory, cluster.Volumes),
		fill(factory, cluster.StorageClasses),
		fill(factory, cluster.CSINodes),
		fill(factory, cluster.CSIDrivers),
		fill(factory, cluster.StorageCapacities),
		fill(factory, cluster.Attachments),
	} {
		if err != nil {
			return nil, err
		}
	}
	return factory, nil
}

// fill has factory serve objects, whose type is a pointer.
func fill[T runtime.Object](factory informers.SharedInformerFactory, objects []T) error {
	example := reflect.New(reflect.TypeFor[T]().Elem()).Interface().(T)
	informer := &still{cache.NewSharedIndexInformer(nil, example, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})}
	for _, object := range objects {
		if err := informer.GetIndexer().Add(object); err != nil {
			return fmt.Errorf("indexing a %T: %w", object, err)
		}
	}
	factory.InformerFor(example, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer { return informer })
	return nil
}

// still is an informer that is not run: what it knows it knows from the start.
type still struct {
	cache.SharedIndexInformer
}

// AddEventHandler tells handler of every object before it returns.
func (s *still) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	for _, object := range s.GetIndexer().List() {
		handler.OnAdd(object, true)
	}
	return s.SharedIndexInformer.AddEventHandler(handler)
}

// HasSynced says that nothing more is to come.
func (s *still) HasSynced() bool {
	return true
}
