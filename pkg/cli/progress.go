// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
)

// progress tells on a terminal how far reading has come. A nil progress is silent.
type progress struct {
	out   io.Writer
	clock clock.PassiveClock
	begun time.Time

	mu     sync.Mutex // protects the rest
	counts map[string]int
	shown  bool
}

// quickly is how long reading may take without a word.
const quickly = time.Second

// clearLine returns to the beginning of a terminal's line and empties it.
const clearLine = "\r\033[K"

// newProgress returns nil unless out is a terminal.
func newProgress(out io.Writer, clock clock.PassiveClock) *progress {
	if !isTerminal(out) {
		return nil
	}
	return &progress{out: out, clock: clock, begun: clock.Now(), counts: make(map[string]int)}
}

// read tells of a page that has come.
func (p *progress) read(resource string, page runtime.Object) {
	if p == nil {
		return
	}
	more := int64(0)
	if list, err := meta.ListAccessor(page); err == nil && list.GetRemainingItemCount() != nil {
		more = *list.GetRemainingItemCount()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[resource] += meta.LenList(page)
	if p.clock.Since(p.begun) < quickly {
		return
	}
	name, _, _ := strings.Cut(resource, ".")
	text := fmt.Sprintf("Reading %s: %d", name, p.counts[resource])
	if more > 0 {
		text += fmt.Sprintf(" of %d", int64(p.counts[resource])+more)
	}
	fmt.Fprint(p.out, clearLine, text)
	p.shown = true
}

// done removes what was shown.
func (p *progress) done() {
	if p == nil || !p.shown {
		return
	}
	fmt.Fprint(p.out, clearLine)
}
