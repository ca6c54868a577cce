// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import "slices"

// Reason is a verdict in one word, for programs. [Reason.Words] is for people.
type Reason string

// The reasons. What they mean is in the table below.
const (
	ReasonNodeName     Reason = "NodeNameMismatch"
	ReasonNodeSelector Reason = "NodeSelectorMismatch"
	ReasonNodeAffinity Reason = "NodeAffinityMismatch"
	ReasonTaint        Reason = "TaintNotTolerated"
	ReasonDeleting     Reason = "DaemonSetDeleting"

	ReasonCreateFailed Reason = "CreateFailed"
	ReasonNotCreated   Reason = "NotCreated"
	ReasonTerminating  Reason = "Terminating"

	ReasonNarrowed Reason = "AdmissionNarrowed"
	ReasonUnpinned Reason = "PinLost"

	ReasonGated       Reason = "SchedulingGated"
	ReasonNoScheduler Reason = "NoScheduler"

	ReasonNeverFits     Reason = "NeverFits"
	ReasonNoDevice      Reason = "NoDevice"
	ReasonNoRoom        Reason = "NoRoom"
	ReasonPortTaken     Reason = "PortTaken"
	ReasonRequires      Reason = "RequiredNotReady"
	ReasonUnschedulable Reason = "Unschedulable"
	ReasonSchedulable   Reason = "Schedulable"
	ReasonPreempting    Reason = "Preempting"

	ReasonRejected     Reason = "PodFailed"
	ReasonNodeNotReady Reason = "NodeNotReady"
	ReasonNoNetwork    Reason = "NoNetwork"
	ReasonVolume       Reason = "VolumeNotReady"
	ReasonNotStarted   Reason = "NotStarted"
	ReasonImage        Reason = "ImagePull"
	ReasonContainer    Reason = "ContainerCreate"
	ReasonCrash        Reason = "CrashLoop"
	ReasonInit         Reason = "Initializing"
	ReasonNotReady     Reason = "NotReady"

	ReasonNotAvailable Reason = "NotAvailable"
	ReasonOutdated     Reason = "Outdated"
	ReasonReady        Reason = "Ready"
	ReasonWouldRun     Reason = "WouldRun"
)

// aging says how a gap with a reason becomes trouble.
type aging int

const (
	// waits: it may close by itself, and is trouble when it has not for [Options.Patience],
	// or when the kubelet has warned for [warnedFor].
	waits aging = iota
	// atOnce: somebody has to do something.
	atOnce
	// noGap: the node has what it should have.
	noGap
)

// Row is a reason with all that is to be said of it. Texts may have arguments in
// braces. In commands these are ds, namespace, node, pod, podspace (the pod's namespace)
// and those of the cause.
type Row struct {
	Reason Reason
	// Step is where the chain usually ends with it.
	Step Step
	// Words are the reason as an operator would say it.
	Words string
	// Message is one sentence, or a few. A value that is each node's own has a star.
	Message string
	// Meaning says what has happened, for a page.
	Meaning string
	// Next is the command that shows more, without the program. It only reads.
	Next string
	// Mend says how to mend it. It is empty where there is nothing to mend.
	Mend string
	// Alert is the alert of the Kubernetes mixin that fires for it.
	Alert string

	ages aging
}

// Ages says how a gap with the reason becomes trouble.
func (r *Row) Ages() string {
	switch r.ages {
	case waits:
		return "It may pass by itself, and is trouble when it has not within --patience."
	case atOnce:
		return "It is trouble at once."
	default:
		return "It is no trouble."
	}
}

// Alerts of the Kubernetes mixin (kubernetes-monitoring/kubernetes-mixin, alerts/apps_alerts.libsonnet).
const (
	alertNotScheduled = "KubeDaemonSetNotScheduled"
	alertStuck        = "KubeDaemonSetRolloutStuck"
	alertMisScheduled = "KubeDaemonSetMisScheduled"
	alertCrash        = "KubePodCrashLooping"
)

// Commands that several reasons name.
const (
	describeDaemonSet = "describe {ds} -n {namespace}"
	describeNode      = "describe node {node}"
	describePod       = "describe {pod} -n {podspace}"
	watchPod          = "get {pod} -n {podspace} --watch"
	showPlacement     = "get {ds} -n {namespace} -o jsonpath={.spec.template.spec}"
	showLabels        = "get node {node} --show-labels"
	showLeases        = "get leases -n kube-system"
	containerLogs     = "logs {pod} -n {podspace} -c {container}"
)

// rows are all reasons in the order of the steps.
var rows = []Row{
	{
		Reason: ReasonNodeName, Step: StepController, ages: noGap, Words: "not selected",
		Message: "The template's nodeName is {want}.",
		Meaning: "The template names another node, so the controller wants no pod here.",
		Next:    showPlacement, Mend: "Choose nodes by label instead of by name.", Alert: alertMisScheduled,
	},
	{
		Reason: ReasonNodeSelector, Step: StepController, ages: noGap, Words: "not selected",
		Message: "The nodeSelector wants {want}, the node has {have*}.",
		Meaning: "A label that the template's nodeSelector asks for is missing on the node, or has another value. With the step filters, the node has changed since the pod was created.",
		Next:    showLabels, Mend: "If the DaemonSet should run there, label the node, or change the selector. A label that a program sets is that program's.", Alert: alertMisScheduled,
	},
	{
		Reason: ReasonNodeAffinity, Step: StepController, ages: noGap, Words: "not selected",
		Message: "The required node affinity wants {want}, the node has {have*}.",
		Meaning: "No term of the template's required node affinity matches the node. Terms are alternatives; all requirements of a term have to hold.",
		Next:    showLabels, Mend: "If the DaemonSet should run there, change the affinity or the node's labels.", Alert: alertMisScheduled,
	},
	{
		Reason: ReasonTaint, Step: StepController, ages: noGap, Words: "taint not tolerated",
		Message: "The node has {taints*}, which {who} does not tolerate.{note}",
		Meaning: "A taint keeps the DaemonSet off the node. Taints of nodes that start, stop or are in trouble come and go by themselves. With the step filters, the template tolerates the taint and the pod does not.",
		Next:    describeNode, Mend: "If the taint stays and the DaemonSet should run there, tolerate it. A start-up taint that stays is its agent's fault.", Alert: alertMisScheduled,
	},
	{
		Reason: ReasonDeleting, Step: StepController, ages: noGap, Words: "being deleted",
		Message: "The {what} is being deleted{held}.",
		Meaning: "The DaemonSet, or its namespace, is being deleted. No new pods are created. It stays for as long as it has finalizers.",
		Next:    "get {ds} -n {namespace} -o jsonpath={.metadata.finalizers}", Mend: "Find out why the program that set the finalizer does not remove it.",
	},
	{
		Reason: ReasonCreateFailed, Step: StepCreation, ages: atOnce, Words: "no pod: refused",
		Message: "The API server refuses the pod: {why}",
		Meaning: "The controller has tried to create the pod, and the API server, a quota or a webhook has refused it. The controller tries again, each time after twice as long, up to 17 minutes.",
		Next:    describeDaemonSet, Mend: "Remove what the message names, or change the template so that it is no longer in the way.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonNotCreated, Step: StepCreation, ages: waits, Words: "no pod",
		Message: "The DaemonSet controller has not {what}, or kube-controller-manager does not run.",
		Meaning: "The controller wants a pod on the node, has not created it and has reported no trouble.",
		Next:    showLeases, Mend: "Have kube-controller-manager run: its lease says when it was last there.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonTerminating, Step: StepCreation, ages: waits, Words: "terminating",
		Message: "The old pod {what}, and the controller creates the next one when it has gone.{note}",
		Meaning: "The old pod has been deleted and has not ended. The controller waits for it. A finalizer holds a pod until the program behind it lets go; on a node that does not report, no kubelet says that the pod has ended.",
		Next:    "get {pod} -n {podspace} -o yaml", Mend: "Mend the program that owns the finalizer, or the node. A node that is gone for good is deleted with kubectl delete node.", Alert: alertStuck,
	},
	{
		Reason: ReasonNarrowed, Step: StepAdmission, ages: atOnce, Words: "narrowed by admission",
		Message: "The controller wants the pod here, but admission added a node selector that the node does not match: it wants {want}, the node has {have*}.{note}",
		Meaning: "The controller looks at the template, and the scheduler at the pod. Admission has given the pod a node selector that the template does not have.",
		Next:    "get namespace {namespace} -o jsonpath={.metadata.annotations}", Mend: "The node selector of a namespace limits its tenant: ask the people who run the cluster. Give the DaemonSet the same node selector, and the controller no longer wants pods elsewhere.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonUnpinned, Step: StepAdmission, ages: atOnce, Words: "pin lost",
		Message: "There are pods that don't say which node they are for: something took away the node affinity that the controller had given them. It takes the node for empty and makes ever more of them.",
		Meaning: "A webhook has removed or replaced the node affinity by which the controller tells its pods apart.",
		Next:    "get mutatingwebhookconfigurations", Mend: "Have the webhook leave spec.affinity of daemon pods alone.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonGated, Step: StepQueue, ages: atOnce, Words: "gated",
		Message: "The pod has scheduling gates that are not open: {gates}.",
		Meaning: "No scheduler looks at a pod with scheduling gates. The program that set them removes them.",
		Next:    "get {pod} -n {podspace} -o jsonpath={.spec.schedulingGates}", Mend: "Find out why the program that set the gate does not remove it.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonNoScheduler, Step: StepQueue, ages: atOnce, Words: "no scheduler",
		Message: "No scheduler has looked at the pod. It asks for the scheduler {scheduler}: that does not run, or has a long queue.",
		Meaning: "The pod has no condition PodScheduled, which every scheduler writes when it has tried.",
		Next:    showLeases, Mend: "Have that scheduler run, or name another one in spec.template.spec.schedulerName.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonNeverFits, Step: StepFilters, ages: atOnce, Words: "can never fit",
		Message: "The pod can never fit: {lacks*}.",
		Meaning: "The pod asks for more than the node has in all.",
		Next:    describeNode, Mend: "Have the container {container} ask for less, keep the DaemonSet off nodes of that size, or take larger nodes.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonNoDevice, Step: StepFilters, ages: waits, Words: "no such device",
		Message: "The node offers no {devices}.",
		Meaning: "The pod asks for a device, and the node lists none. Its device plugin does not run there yet, or the node has no such device, or a driver of Dynamic Resource Allocation serves it, which is not looked at.",
		Next:    "get node {node} -o jsonpath={.status.allocatable}", Mend: "Have the device plugin run on the node, or keep the DaemonSet off nodes without the device.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonNoRoom, Step: StepFilters, ages: atOnce, Words: "no room",
		Message: "The node has not enough {short} left.",
		Meaning: "Other pods have what the pod asks for. kube-scheduler evicts pods of lower priority; everynode-scheduler also pods of the same one.",
		Next:    describeNode, Mend: "Move one of the pods in the way, or give the DaemonSet a PriorityClass above theirs: its pods are then replaced, and theirs evicted.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonPortTaken, Step: StepFilters, ages: atOnce, Words: "host port taken",
		Message: "{whose} host port {ports}{why}",
		Meaning: "Two pods on a node cannot have the same host port. With maxSurge the old and the new pod of one DaemonSet are such two.",
		Next:    "get pod -n {podspace} -o wide --field-selector spec.nodeName={node}", Mend: "Give one of the two another port.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonRequires, Step: StepFilters, ages: waits, Words: "waits for its agents",
		Message: "everynode-scheduler refuses the node: {why}.",
		Meaning: "The pod is annotated everynode.dev/requires, and a DaemonSet that it names is not Ready on the node.",
		Next:    describePod, Mend: "Have the DaemonSet run that the annotation names.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonUnschedulable, Step: StepFilters, ages: atOnce, Words: "unschedulable",
		Message: "The scheduler's plugin {plugin} refuses: {why}.",
		Meaning: "A filter of the scheduler refuses the node for a reason that the message says in its own words.",
		Next:    describePod, Mend: "Change what the plugin looks at: volumes, pod affinity, topology spread.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonSchedulable, Step: StepQueue, ages: waits, Words: "about to be placed",
		Message: "{what}",
		Meaning: "Nothing that was checked keeps the pod from its node. The scheduler is about to place it, or has rules that are not known here.",
		Next:    watchPod, Mend: "If it stays so, read what the scheduler has said, and the scheduler's log.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonPreempting, Step: StepPreemption, ages: waits, Words: "making room",
		Message: "Pods on the node are ending, and what they leave is enough for the pod.",
		Meaning: "The pod is placed when the pods that are listed have ended.",
		Next:    watchPod, Mend: "If they don't end, look for their finalizers and their grace period.", Alert: alertNotScheduled,
	},
	{
		Reason: ReasonRejected, Step: StepKubelet, ages: atOnce, Words: "pod failed",
		Message: "The pod {what}{why}{colon}{said*}.",
		Meaning: "The kubelet has refused the pod or ended it. The controller deletes failed pods, each time after a longer wait, up to 15 minutes, and then creates another one.",
		Next:    describePod, Mend: "Mend what the message names: pressure on the node, or resources that the scheduler does not know to be taken.", Alert: alertStuck,
	},
	{
		Reason: ReasonNodeNotReady, Step: StepKubelet, ages: atOnce, Words: "node not ready",
		Message: "The pod is on the node, {what}{colon}{said*}.",
		Meaning: "The kubelet does not report, so nothing is known of the pod; or it reports that the node is not ready, and has nothing to say of the pod.",
		Next:    describeNode, Mend: "Mend the node, or delete it if it is gone for good.", Alert: alertStuck,
	},
	{
		Reason: ReasonNoNetwork, Step: StepKubelet, ages: waits, Words: "no network on the node",
		Message: "The node has no network yet: {root}.",
		Meaning: "The kubelet cannot start a pod that is not on the host network before a network plugin has configured the node.",
		Next:    describeNode, Mend: "Mend the DaemonSet of the network plugin first.", Alert: alertStuck,
	},
	{
		Reason: ReasonVolume, Step: StepKubelet, ages: waits, Words: "volume not ready",
		Message: "The kubelet cannot prepare a volume of the pod ({event}).",
		Meaning: "A volume cannot be attached or mounted: a Secret or ConfigMap is missing, a host folder is not there, or a storage driver does not answer.",
		Next:    describePod, Mend: "Create what the kubelet misses, or mend the storage driver on the node.", Alert: alertStuck,
	},
	{
		Reason: ReasonNotStarted, Step: StepKubelet, ages: waits, Words: "not started",
		Message: "{what}",
		Meaning: "The pod is bound to the node, and its containers do not run yet.",
		Next:    describePod, Mend: "If it stays so, look at the pod's events and at the kubelet's log on the node.", Alert: alertStuck,
	},
	{
		Reason: ReasonImage, Step: StepKubelet, ages: atOnce, Words: "image not pulled",
		Message: "The image {image} of {kind} {container} cannot be had ({why*}).",
		Meaning: "The kubelet cannot get the image. If it is so on some nodes only, look at their network and at their access to the registry.",
		Next:    describePod, Mend: "Correct the image's name or the pull secret; on single nodes, mend their way to the registry.", Alert: alertStuck,
	},
	{
		Reason: ReasonContainer, Step: StepKubelet, ages: atOnce, Words: "container not created",
		Message: "The {kind} {container} cannot be created ({why}).",
		Meaning: "The kubelet has the image and cannot make the container: a ConfigMap, a Secret or a key is missing, a host folder has another type, or the command does not exist.",
		Next:    describePod, Mend: "Create what the kubelet misses, or correct the template.", Alert: alertStuck,
	},
	{
		Reason: ReasonCrash, Step: StepKubelet, ages: atOnce, Words: "crashing",
		Message: "The {kind} {container} ends again and again{how}; it was restarted {restarts*} times.",
		Meaning: "A container ends shortly after each start. The kubelet waits longer before each restart. Between two crashes the container runs, and without a readiness probe the pod then counts as Ready.",
		Next:    containerLogs + " --previous", Mend: "Read why it ended. OOMKilled: raise the memory limit.", Alert: alertCrash,
	},
	{
		Reason: ReasonInit, Step: StepKubelet, ages: waits, Words: "initializing",
		Message: "The init container {container} has not finished; the containers start after it.",
		Meaning: "An init container runs, or waits to run.",
		Next:    containerLogs, Mend: "If it stays so, read what it waits for.", Alert: alertStuck,
	},
	{
		Reason: ReasonNotReady, Step: StepKubelet, ages: waits, Words: "not ready",
		Message: "{what}",
		Meaning: "The containers run, and the pod is not Ready: a probe does not succeed, or a readiness gate is not open.",
		Next:    containerLogs, Mend: "Read the container's log, and what the probe was answered.", Alert: alertStuck,
	},
	{
		Reason: ReasonNotAvailable, Step: StepReady, ages: noGap, Words: "ready, not yet available",
		Message: "The pod is Ready, but not for the {seconds} seconds of minReadySeconds.",
		Meaning: "An update counts a pod when it has been Ready for minReadySeconds.",
	},
	{
		Reason: ReasonOutdated, Step: StepReady, ages: noGap, Words: "ready, to be updated",
		Message: "The pod is Ready, and made from an earlier template.",
		Meaning: "An update is under way, or the strategy is OnDelete: then a pod is replaced when it is deleted.",
		Next:    "rollout status {ds} -n {namespace} --watch=false", Alert: alertStuck,
	},
	{Reason: ReasonReady, Step: StepReady, ages: noGap, Words: "ready", Message: "The pod is Ready.", Meaning: "All is well."},
	{
		Reason: ReasonWouldRun, Step: StepReady, ages: noGap, Words: "would run", Message: "The pod fits.",
		Meaning: "In a plan: the pod fits on the node as things are.",
	},
}

// Rows returns all reasons in the order of the steps.
func Rows() []Row {
	return slices.Clone(rows)
}

// rowOf are the rows by their reasons.
var rowOf = func() map[Reason]*Row {
	byReason := make(map[Reason]*Row, len(rows))
	for n := range rows {
		byReason[rows[n].Reason] = &rows[n]
	}
	return byReason
}()

// row returns what is to be said of a reason; for one that is not in the table, its name.
func (r Reason) row() *Row {
	if row := rowOf[r]; row != nil {
		return row
	}
	return &Row{Reason: r, Words: string(r)}
}

// Words returns the reason as an operator would say it.
func (r Reason) Words() string {
	return r.row().Words
}
