// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/util/wait"

	"everynode.dev/everynode/test/localcluster"
)

// stage is what the audience sees.
type stage struct {
	out     io.Writer
	pause   bool
	live    bool // out is a terminal: lines can be drawn over
	colour  bool
	acts    int
	cluster *localcluster.Cluster
}

func newStage(out *os.File, pause bool) *stage {
	live := term.IsTerminal(int(out.Fd()))
	return &stage{out: out, pause: pause, live: live, colour: live && os.Getenv("NO_COLOR") == ""}
}

func (s *stage) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// title opens an act.
func (s *stage) title(text string) {
	if s.acts > 0 && s.pause {
		fmt.Fprint(s.out, "\nPress Enter to go on. ")
		// At the end of the input the show goes on.
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	}
	heading := text
	if s.acts > 0 {
		heading = fmt.Sprintf("Act %d: %s", s.acts, text)
	}
	s.acts++
	fmt.Fprintf(s.out, "\n%s\n%s\n\n", s.paint("1", heading), strings.Repeat("─", len([]rune(heading))))
}

// say tells the audience something.
func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}

// ready tells that a component has become ready.
func (s *stage) ready(component string, took time.Duration) {
	fmt.Fprintf(s.out, "  %-26s ready in %4.1fs\n", component, took.Seconds())
}

// kubectl runs kubectl before the audience's eyes.
func (s *stage) kubectl(ctx context.Context, args ...string) error {
	fmt.Fprintln(s.out, s.paint("36", "$ kubectl "+strings.Join(args, " ")))
	output, err := s.cluster.Kubectl(ctx, nil, args...)
	for line := range strings.Lines(output) {
		fmt.Fprint(s.out, "  ", line)
	}
	return err
}

// until waits until check returns nil, and shows how long it has been waiting.
func (s *stage) until(ctx context.Context, what string, check func(context.Context) error) error {
	var last error
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		if s.live {
			fmt.Fprintf(s.out, "\r  %s ... %.1fs ", what, time.Since(began).Seconds())
		}
		return last == nil, nil
	})
	if s.live {
		fmt.Fprint(s.out, "\r\x1b[K")
	}
	if err != nil {
		return fmt.Errorf("%s: not within a minute: %w", what, last)
	}
	fmt.Fprintf(s.out, "  %s %s after %.1fs\n", s.paint("32", "✓"), what, time.Since(began).Seconds())
	return nil
}
