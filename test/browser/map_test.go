// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package browser tries the page that kubectl everynode map writes in a browser, as a
// person would: from a file, with keys and clicks.
package browser

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"everynode.dev/everynode/pkg/explain"
	"everynode.dev/everynode/pkg/mapview"
	"everynode.dev/everynode/pkg/snapshot"
	"everynode.dev/everynode/pkg/snapshot/snapshottest"
)

var pictures = flag.String("pictures", "", "folder that receives pictures of the pages")

// chromium returns the browser, or skips the test where there is none.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("There is no Chromium on the path: the page of kubectl everynode map is not tried in a browser. Debian's package is chromium.")
	return ""
}

// tab is a page in a browser.
type tab struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // of the browser, which lives as long as the test
}

// open writes m as a page and opens it.
func open(t *testing.T, m *explain.Map) *tab {
	t.Helper()
	path := filepath.Join(t.TempDir(), "map.html")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := mapview.HTML(file, m, mapview.PageOptions{At: snapshottest.Now.Time, Flags: []string{"--context=prod"}}); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(chromium(t)), chromedp.UserDataDir(t.TempDir()), chromedp.DisableGPU,
		// In containers, root has no sandbox; and nothing is asked of the network.
		chromedp.NoSandbox, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	p := &tab{t, ctx}
	p.do(chromedp.EmulateViewport(1280, 800), chromedp.Navigate("file://"+path))
	return p
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// keys types.
func (p *tab) keys(keys string, options ...chromedp.KeyOption) {
	p.t.Helper()
	p.do(chromedp.KeyEvent(keys, options...))
}

// search types into a field in place of what is in it.
func (p *tab) search(field, text string) {
	p.t.Helper()
	p.click(field)
	p.keys(strings.Repeat(kb.Backspace, len(value[string](p, "document.querySelector('"+field+"').value"))) + text)
}

// click clicks on what the selector finds.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(css(selector)))
}

// css is a selector of CSS; chromedp's own strings are searches.
func css(selector string) chromedp.CSS { return chromedp.CSS(selector) }

// value returns what a JavaScript expression is.
func value[T any](p *tab, expression string) T {
	p.t.Helper()
	value, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// want checks the text of an element.
func (p *tab) want(id, text string) {
	p.t.Helper()
	if have := value[string](p, "document.getElementById('"+id+"').textContent"); !strings.Contains(have, text) {
		p.t.Errorf("%s is %q, want %q in it", id, have, text)
	}
}

// picture keeps a picture of the page, if a folder was named.
func (p *tab) picture(name string) {
	p.t.Helper()
	if *pictures == "" {
		return
	}
	content, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*pictures, name+".png"), content, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// scheme has the page believe that the user prefers dark or light.
func (p *tab) scheme(name string) {
	p.t.Helper()
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	}))
}

func newMap(t *testing.T, cluster *snapshot.Cluster) *explain.Map {
	t.Helper()
	engine, err := explain.New(t.Context(), cluster, explain.Options{Now: snapshottest.Now.Time})
	if err != nil {
		t.Fatal(err)
	}
	m, err := engine.Map(t.Context(), engine.DaemonSets(), "topology.kubernetes.io/zone")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A small cluster: somebody looks for a node, for a DaemonSet, for trouble, and reads
// verdicts with the mouse and with the keyboard.
func TestSmallMap(t *testing.T) {
	t.Parallel()
	p := open(t, newMap(t, snapshottest.Cluster(10, 6, 100)))
	p.want("count", "10 of 10 nodes, 6 of 6 DaemonSets")
	p.picture("small-light")

	p.search("#search", "node-7")
	p.want("count", "1 of 10 nodes, 6 of 6 DaemonSets")
	p.search("#search", "image")
	p.want("count", "1 of 10 nodes")
	p.want("rows", "node-2")
	p.search("#search", "")

	p.search("#filter", "daemons-5")
	p.want("count", "10 of 10 nodes, 1 of 6 DaemonSets")
	p.want("head", "daemons-5")
	p.search("#filter", "")

	p.click("[data-state=stuck]")
	p.want("count", "3 of 10 nodes, 6 of 6 DaemonSets")
	p.click("[data-state=stuck]")
	p.want("count", "10 of 10 nodes")

	// The first row is the title of a zone, and node-0 comes next.
	p.want("rows", "0, 4 nodes")
	p.click("#cell-1-0")
	p.want("verdict", "daemons-0 on node-0: stuck, no room")
	p.want("verdict", "The node has not enough cpu left.")
	p.want("verdict", "kubectl everynode explain ds/daemons-0 -n default --node node-0 --context=prod")
	if label := value[string](p, "document.getElementById('cell-1-0').getAttribute('aria-label')"); label != "daemons-0 on node-0: stuck, no room. The node has not enough cpu left." {
		t.Errorf("a screen reader says %q", label)
	}
	p.keys(kb.ArrowDown + kb.ArrowRight)
	p.want("verdict", "daemons-1 on node-3: does not belong here, not selected")
	if active := value[string](p, "document.activeElement.id + ' ' + document.activeElement.getAttribute('aria-activedescendant')"); active != "grid cell-2-1" {
		t.Errorf("the focus is on %s", active)
	}
	p.picture("verdict-light")
	p.keys("/")
	if active := value[string](p, "document.activeElement.id + document.activeElement.value"); active != "search" {
		t.Errorf("the focus is on %s", active)
	}

	light := value[string](p, "getComputedStyle(document.body).backgroundColor")
	p.scheme("dark")
	if dark := value[string](p, "getComputedStyle(document.body).backgroundColor"); dark == light {
		t.Errorf("the paper is %s in the dark too", dark)
	}
	p.picture("small-dark")
}

// Whatever names and messages are, they are text.
func TestNamesAreText(t *testing.T) {
	t.Parallel()
	const evil = `</script><img src=x onerror="document.title='evil'">'"&amp;{{.}}`
	p := open(t, &explain.Map{
		DaemonSets: []explain.MapColumn{{Namespace: evil, Name: evil, Desired: 1}},
		Verdicts:   []explain.MapVerdict{{State: explain.StateStuck, Step: explain.StepKubelet, Reason: explain.Reason(evil), Message: evil}},
		Nodes:      []explain.MapRow{{Name: evil, Group: evil, Cells: []int{0}}},
	})
	p.click("#cell-1-0")
	p.want("verdict", evil+" on "+evil+": stuck, "+evil)
	p.want("rows", evil)
	p.want("head", evil)
	if images := value[int](p, "document.images.length"); images > 0 {
		t.Errorf("there are %d images", images)
	}
	if title := value[string](p, "document.title"); title == "evil" {
		t.Error("a name was run")
	}
}

// The largest cluster: the page is there soon, and the document stays small.
func TestLargeMap(t *testing.T) {
	t.Parallel()
	m := newMap(t, snapshottest.Cluster(5_000, 50, 0))
	p := open(t, m)
	p.want("count", "5000 of 5000 nodes, 50 of 50 DaemonSets")
	loaded := value[float64](p, "performance.getEntriesByType('navigation')[0].loadEventEnd")
	size := value[float64](p, "document.documentElement.outerHTML.length")
	searched := value[float64](p, `(() => {
		const search = document.getElementById('search'), begun = performance.now();
		for (const text of ['n', 'no', 'node-49', '']) { search.value = text; search.dispatchEvent(new Event('input')); }
		document.body.offsetHeight;
		return (performance.now() - begun) / 4;
	})()`)
	t.Logf("loaded after %.0f ms, %.1f MB, a key of the search takes %.0f ms", loaded, size/1e6, searched)
	if loaded > 5000 || searched > 500 {
		t.Error("that is too slow")
	}
	p.picture("large-light")
	p.do(chromedp.Focus(css("#grid")))
	p.keys(kb.End, chromedp.KeyModifiers(2)) // Ctrl
	p.want("verdict", fmt.Sprintf("%s on %s", m.DaemonSets[49].Name, m.Nodes[4999].Name))
	p.want("rows", m.Nodes[4999].Name)
	if elements := value[int](p, "document.querySelectorAll('*').length"); elements > 15_000 {
		t.Errorf("the document has %d elements", elements)
	}
	p.keys(kb.Home, chromedp.KeyModifiers(2))
	p.want("verdict", fmt.Sprintf("%s on %s", m.DaemonSets[0].Name, m.Nodes[0].Name))
	p.click("[data-state=stuck]")
	p.want("count", "50 of 5000 nodes")
	p.scheme("dark")
	p.picture("large-dark")
}
