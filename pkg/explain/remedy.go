// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/kubernetes/pkg/apis/scheduling"

	"everynode.dev/everynode/pkg/daemonset"
)

// Command returns a command that can be pasted into a shell: kubectl, which begins it, and
// words, quoted. It is "" if kubectl is.
func Command(kubectl string, words ...string) string {
	if kubectl == "" {
		return ""
	}
	quoted := []string{kubectl}
	for _, word := range words {
		quoted = append(quoted, Quote(word))
	}
	return strings.Join(quoted, " ")
}

// Quote returns word as a shell takes it for one word.
func Quote(word string) string {
	special := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:=,@%+", r)
	}
	if word != "" && !strings.ContainsFunc(word, special) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// command fills in a command of the table. There is none if an argument is missing, or
// would be taken for a flag: some come from messages of others.
func (i *inquiry) command(text string) string {
	args := make(Args)
	maps.Copy(args, i.v.Causes[0].Args)
	args["ds"], args["namespace"], args["node"] = "daemonset/"+i.ds.Name, i.ds.Namespace, i.node.Name
	if i.pod != nil {
		args["pod"], args["podspace"] = "pod/"+i.pod.Name, i.pod.Namespace
	}
	words := strings.Fields(text)
	for n, word := range words {
		for _, found := range placeholder.FindAllStringSubmatch(word, -1) {
			if value := args[found[1]]; value == "" || strings.HasPrefix(value, "-") {
				return ""
			}
		}
		words[n] = fillIn(word, args)
	}
	if len(words) == 0 {
		return ""
	}
	return Command(i.kubectl, words...)
}

// next returns the one command to run next. It only reads.
func (i *inquiry) next() string {
	const describeDaemonSet, describePod = "describe {ds} -n {namespace}", "describe {pod} -n {podspace}"
	row := i.v.Reason.row()
	switch {
	case i.root != nil && i.root.v.Next != "":
		return i.root.v.Next
	case i.refusedAs != nil:
		return i.command(i.refusedAs.next)
	case i.v.Reason == ReasonPortTaken && len(i.v.Blockers) > 0:
		holder := &i.v.Blockers[0]
		return Command(i.kubectl, "get", "pod/"+holder.Name, "-n", holder.Namespace, "-o", "wide")
	case i.v.Reason == ReasonTaint && i.forgotten == nil && !i.passing:
		return i.command("get {ds} -n {namespace} -o jsonpath={.spec.template.spec}")
	case i.v.Reason == ReasonNoDevice && len(i.v.Shortages) == 0:
		return i.command("get resourceslices --field-selector=spec.nodeName={node}")
	case i.v.Reason == ReasonNotReady && i.v.Causes[0].Args["container"] == "":
		return i.command(describePod)
	case row.Next == "":
		return ""
	default:
		return cmp.Or(i.command(row.Next), i.command(describePod), i.command(describeDaemonSet))
	}
}

// fix returns what mends the verdict's cause. Commands are given where one command
// mends it and changes what it says only.
func (i *inquiry) fix(ctx context.Context) *Fix {
	fix := i.specificFix(ctx)
	if mend := i.v.Reason.row().Mend; fix == nil && mend != "" {
		args := make(Args)
		maps.Copy(args, i.v.Causes[0].Args)
		args["rolls"], args["creates"], args["onnode"] = i.rolls(), i.creates(), Count(len(i.on[i.node.Name]), "pod")
		fix = &Fix{Text: fillIn(mend, args)}
	}
	return fix
}

// rolls says what becomes of the pods when the template changes.
func (i *inquiry) rolls() string {
	all := i.count(func(*corev1.Pod) bool { return true })
	if i.ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return fmt.Sprintf("replaces each of its pods (%d) when that is deleted", all)
	}
	return fmt.Sprintf("replaces all of its pods (%d)", all)
}

// creates says how many pods the controller would create now.
func (i *inquiry) creates() string {
	return Count(i.nodesWhere("", func(node *corev1.Node) bool {
		run, _ := i.compiled.ShouldRun(node)
		return run && len(i.pods[node.Name]) == 0
	}), "pod")
}

// nodesWhere counts the nodes that match, once for each key: the verdicts on many nodes may ask for it.
func (i *inquiry) nodesWhere(key string, match func(*corev1.Node) bool) int {
	n, known := i.counted[key]
	if !known {
		for _, node := range i.cluster.Nodes {
			if match(node) {
				n++
			}
		}
		i.counted[key] = n
	}
	return n
}

// specificFix returns a fix that has to do with this cluster, nil if there is none.
func (i *inquiry) specificFix(ctx context.Context) *Fix {
	if i.root != nil {
		return &Fix{Text: "Mend " + i.root.compiled.String() + " first: the node waits for it."}
	}
	switch i.v.Reason {
	case ReasonNodeSelector, ReasonTaint:
		return i.fixPlacement()
	case ReasonCreateFailed:
		if kind := i.refusedAs; kind != nil && kind.fix != "" {
			return &Fix{
				Text:    "Create it, and give it the rights that the agent needs. The controller then creates " + i.creates() + ".",
				Command: i.command(kind.fix),
			}
		}
	case ReasonPortTaken:
		if i.ownPort {
			return i.onTemplate("Replace old pods before new ones start. This changes the update strategy; no pod is replaced for it.", "merge",
				map[string]any{"spec": map[string]any{"updateStrategy": map[string]any{"rollingUpdate": map[string]any{"maxSurge": 0, "maxUnavailable": 1}}}})
		}
	case ReasonNoRoom:
		return i.makeRoom(ctx)
	case ReasonOutdated:
		if i.ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
			return i.deletePod("With OnDelete, a pod is replaced when it is deleted: this replaces one pod.")
		}
	case ReasonImage:
		return i.fixImage()
	default:
	}
	return nil
}

// fixPlacement is for taints and node selectors.
func (i *inquiry) fixPlacement() *Fix {
	taint := i.forgotten
	switch {
	case taint != nil:
		return &Fix{
			Text: "Find out why its agent does not take it off. If the agent works, or there is none, take it off by hand. " +
				i.changing([]*corev1.Node{i.node}, func(node *corev1.Node) {
					node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(taint) })
				}),
			Command: i.dryRun("taint", "node", i.node.Name, taint.Key+":"+string(taint.Effect)+"-"),
		}
	case i.v.Reason == ReasonTaint && i.passing:
		return &Fix{Text: "Nothing, if the taint goes by itself. A toleration would bring pods to nodes that are not ready for them."}
	case i.v.Step != StepController:
		return i.deletePod("Have the controller make the pod anew: this deletes one pod that does not run.")
	case i.v.Reason == ReasonTaint:
		return i.tolerate()
	default:
		return i.labelNode()
	}
}

// fixImage undoes an update to an image that is not there, if the one before works.
func (i *inquiry) fixImage() *Fix {
	works := func(pod *corev1.Pod) bool { return !i.updated(pod) && daemonset.IsReady(pod) }
	if !i.imageIsMissing() || !i.updated(i.pod) || i.count(works) == 0 {
		return nil
	}
	replaces := " That replaces the pods of the current template, " + Count(i.count(i.updated), "pod") + "."
	if managed := i.manager(); managed != "" {
		return &Fix{Text: "Correct the image, or go back to the one before, in " + managed + "." + replaces}
	}
	return &Fix{Text: "Correct the image, or undo the update." + replaces, Command: i.dryRun("rollout", "undo", "daemonset/"+i.ds.Name, "-n", i.ds.Namespace)}
}

func (i *inquiry) deletePod(text string) *Fix {
	return &Fix{Text: text, Command: i.dryRun("delete", "pod/"+i.pod.Name, "-n", i.pod.Namespace)}
}

// dryRun returns a command that the API server checks, and that changes nothing.
func (i *inquiry) dryRun(words ...string) string {
	return Command(i.kubectl, append(words, "--dry-run=server")...)
}

// makeRoom: if pods are to be evicted, wait. If not, a higher priority makes room,
// which has its price; no class is named, because those of others mean something to them.
func (i *inquiry) makeRoom(ctx context.Context) *Fix {
	p, scheduler := cmp.Or(i.v.Preemption, &Preemption{}), i.schedulers.Stock
	victims := len(p.Stock.Victims)
	if p.InForce == Everynode {
		scheduler, victims = i.schedulers.Everynode, len(p.Everynode.Victims)
	}
	if victims > 0 {
		return &Fix{Text: "Nothing: the scheduler is making room, and evicts " + Count(victims, "pod") + "."}
	}
	fix := &Fix{forNodes: i.outrank}
	found := false
	for n := range i.v.Blockers {
		if b := &i.v.Blockers[n]; i.set.OwnerOf(b.holder) == nil && !daemonset.IsMirror(b.holder) && b.Priority < scheduling.HighestUserDefinablePriority {
			fix.above, found = max(fix.above, b.Priority), true
		}
	}
	if !found {
		return &Fix{Text: "Only daemon pods and static pods are in the way: have one of them ask for less, or take a larger node."}
	}
	raised := i.checkable(i.pod).DeepCopy()
	raised.Spec.Priority, raised.Spec.PreemptionPolicy = new(fix.above+1), nil
	node, err := i.schedulers.Node(i.node.Name)
	i.fail(err)
	eviction, err := scheduler.Evict(ctx, raised, node, i.cluster.Budgets, nil)
	i.fail(err)
	if fix.evicts = len(eviction.Victims); eviction.WhyNot != "" {
		return &Fix{Text: "A higher priority does not make enough room: have one of the pods in the way ask for less, or take a larger node."}
	}
	fix.Text = i.outrank([]*Verdict{{Node: i.node.Name, Fix: fix}}).Text
	return fix
}

// outrank says what it takes to make room on the nodes of verdicts by a higher priority.
func (i *inquiry) outrank(verdicts []*Verdict) *Fix {
	fix, nodes := &Fix{}, make([]string, len(verdicts))
	for n, v := range verdicts {
		fix.above, fix.evicts, nodes[n] = max(fix.above, v.Fix.above), fix.evicts+v.Fix.evicts, v.Node
	}
	fix.Text = fmt.Sprintf("Move one of the pods in the way. Or give the DaemonSet a PriorityClass of its own above %d%s: that %s and evicts %s on %s.",
		fix.above, i.managedElsewhere(), i.rolls(), Count(fix.evicts, "pod"), NodeList(nodes))
	return fix
}

// missingImage is what registries and runtimes say of an image that is not there, and not
// of a registry that a node cannot reach.
var missingImage = []string{"not found", "manifest unknown", "does not exist", "invalid reference", "couldn't parse image"}

// imageIsMissing says whether the image is not there, so that no node can have it.
func (i *inquiry) imageIsMissing() bool {
	said := strings.ToLower(i.said)
	return i.v.Causes[0].Args["why"] == "InvalidImageName" ||
		!strings.Contains(said, "dial tcp") && slices.ContainsFunc(missingImage, func(words string) bool { return strings.Contains(said, words) })
}

// labelNode gives the node the labels that it lacks, unless they are a program's. The same labels help every node
// that lacks the same ones.
func (i *inquiry) labelNode() *Fix {
	var changes []string
	for _, m := range i.labels {
		if !i.forPeople(m.key) {
			return &Fix{Text: fmt.Sprintf("The label %s is set by a program or a provider, and says what the node is: find out why it is not set here, or change the selector, which %s.",
				m.key, i.rolls())}
		}
		changes = append(changes, m.label())
	}
	if slices.ContainsFunc(i.labels, func(m mismatch) bool { return m.has }) {
		changes = append(changes, "--overwrite")
	}
	forNodes := func(verdicts []*Verdict) *Fix {
		// A command with the names of many nodes is no help.
		if len(verdicts) > fewNodes {
			verdicts = verdicts[:1]
		}
		var names []string
		var nodes []*corev1.Node
		for _, v := range verdicts {
			names, nodes = append(names, v.Node), append(nodes, v.of.node)
		}
		return &Fix{
			Text: "If it should run there, label the node. " + i.changing(nodes, func(node *corev1.Node) {
				for _, m := range i.labels {
					node.Labels = labels.Merge(node.Labels, labels.Set{m.key: m.want})
				}
			}),
			Command: i.dryRun(slices.Concat([]string{"label", "node"}, names, changes)...),
		}
	}
	fix := forNodes([]*Verdict{&i.v})
	fix.forNodes = forNodes
	return fix
}

// changing says which pods come to nodes and go from them if the nodes change.
func (e *Engine) changing(nodes []*corev1.Node, change func(*corev1.Node)) string {
	var comes, goes []string
	for _, node := range nodes {
		changed := node.DeepCopy()
		change(changed)
		for _, s := range e.subjects {
			there := len(s.pods[node.Name]) > 0
			ran, stayed := s.compiled.ShouldRun(node)
			switch runs, stays := s.compiled.ShouldRun(changed); {
			case runs && !ran && !there:
				comes = append(comes, s.compiled.String())
			case stayed && !stays && there:
				goes = append(goes, s.compiled.String())
			}
		}
	}
	text := "That brings " + podsOf(comes)
	if len(goes) > 0 {
		text += ", and removes " + podsOf(goes)
	}
	return text + ". Ordinary pods may come, too."
}

// podsOf writes a number of pods with their DaemonSets, of which there is one name for each pod.
func podsOf(daemonSets []string) string {
	distinct := slices.Compact(slices.Sorted(slices.Values(daemonSets)))
	of := cmp.Or(joinAnd(distinct), "a DaemonSet")
	if len(distinct) > fewNodes {
		of = Count(len(distinct), "DaemonSet")
	}
	return Count(len(daemonSets), "pod") + " of " + of
}

// forPeople says whether a label of nodes is for people to set. Keys of programs and
// providers have a domain; what manages a label on other nodes tells for the rest.
func (i *inquiry) forPeople(key string) bool {
	managers := i.cluster.LabelManagers[key]
	if slices.ContainsFunc(managers, func(manager string) bool { return !strings.HasPrefix(manager, "kubectl") }) {
		return false
	}
	domain, _, found := strings.Cut(key, "/")
	reserved := strings.HasSuffix("."+domain, ".kubernetes.io") || strings.HasSuffix("."+domain, ".k8s.io")
	return !found || !reserved && len(managers) > 0
}

// tolerate adds tolerations to the DaemonSet.
func (i *inquiry) tolerate() *Fix {
	const path = "/spec/template/spec/tolerations"
	var tolerations []corev1.Toleration
	var operations []map[string]any
	for _, taint := range i.taints {
		toleration := corev1.Toleration{Key: taint.Key, Operator: corev1.TolerationOpExists, Effect: taint.Effect}
		if taint.Value != "" {
			toleration.Operator, toleration.Value = corev1.TolerationOpEqual, taint.Value
		}
		tolerations = append(tolerations, toleration)
		operations = append(operations, map[string]any{"op": "add", "path": path + "/-", "value": toleration})
	}
	if len(i.template().Tolerations) == 0 {
		operations = []map[string]any{{"op": "add", "path": path, "value": tolerations}}
	}
	ds := i.ds.DeepCopy()
	ds.Spec.Template.Spec.Tolerations = append(ds.Spec.Template.Spec.Tolerations, tolerations...)
	compiled := daemonset.New(ds, daemonset.Options{Priority: i.priority})
	more := i.nodesWhere(fmt.Sprint(tolerations), func(node *corev1.Node) bool {
		runs, _ := compiled.ShouldRun(node)
		ran, _ := i.compiled.ShouldRun(node)
		return runs && !ran
	})
	return i.onTemplate(fmt.Sprintf("If it should run there, tolerate the taint: that %s, and brings it to %s.", i.rolls(), Count(more, "more node")), "json", operations)
}

// onTemplate returns a fix that patches the DaemonSet, if no program owns it.
func (i *inquiry) onTemplate(text, kind string, patch any) *Fix {
	content, err := json.Marshal(patch)
	if managed := i.manager(); managed != "" || err != nil {
		return &Fix{Text: text + " Change it in " + managed + ", which would undo a patch."}
	}
	return &Fix{Text: text, Command: i.dryRun("patch", "daemonset/"+i.ds.Name, "-n", i.ds.Namespace, "--type="+kind, "-p", string(content))}
}

func (i *inquiry) managedElsewhere() string {
	if managed := i.manager(); managed != "" {
		return " (in " + managed + ", which owns it)"
	}
	return ""
}

// managerMarks are labels and annotations by which programs mark what they deploy.
var managerMarks = []struct{ key, name string }{
	{"meta.helm.sh/release-name", "the Helm release"},
	{"argocd.argoproj.io/tracking-id", "the Argo CD application"},
	{"argocd.argoproj.io/instance", "the Argo CD application"},
	{"helm.toolkit.fluxcd.io/name", "the Flux HelmRelease"},
	{"kustomize.toolkit.fluxcd.io/name", "the Flux Kustomization"},
	{"olm.owner", "the operator of"},
	{"addonmanager.kubernetes.io/mode", "the add-on manager, mode"},
	{"app.kubernetes.io/managed-by", "what manages it,"},
}

// manager names what deploys the DaemonSet and would undo a patch, "" if it looks as if
// people do.
func (s *subject) manager() string {
	if owner := metav1.GetControllerOfNoCopy(s.ds); owner != nil {
		return owner.Kind + " " + owner.Name
	}
	for _, mark := range managerMarks {
		if value := cmp.Or(s.ds.Annotations[mark.key], s.ds.Labels[mark.key]); value != "" {
			return mark.name + " " + value
		}
	}
	return ""
}
