// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/clientcmd"
	testingclock "k8s.io/utils/clock/testing"
)

// onTerminal returns the lines that a command line prints on a terminal of that many columns.
func onTerminal(t *testing.T, columns uint16, objects []runtime.Object, args ...string) []string {
	t.Helper()
	t.Setenv("NO_COLOR", "1")
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})); err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		// It ends with an error when the terminal is closed.
		content, _ := io.ReadAll(screen)
		shown <- string(content)
	}()
	config := newConnection()
	config.rules = &clientcmd.ClientConfigLoadingRules{Precedence: []string{"testdata/kubeconfig"}}
	command := newCommand(&environment{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: terminal, ErrOut: &bytes.Buffer{}},
		clock:     testingclock.NewFakeClock(now.Time), config: config, client: fake.NewClientset(objects...),
	})
	command.SetArgs(args)
	err = errors.Join(command.ExecuteContext(t.Context()), terminal.Close())
	if err != nil {
		t.Error(err)
	}
	return strings.Split(strings.ReplaceAll(<-shown, "\r", ""), "\n")
}

// Status leaves out what a terminal has no room for, and says so.
func TestStatusFitsTheTerminal(t *testing.T) {
	const all = "NAMESPACE NAME DESIRED READY UP-TO-DATE AVAILABLE MISSING RESTARTS GAP AGE"
	for name, tc := range map[string]struct {
		columns uint16
		args    string
		header  string
		left    string
	}{
		"enough":        {86, "status -A", all, ""},
		"80 columns":    {80, "status -A", "NAMESPACE NAME DESIRED READY UP-TO-DATE MISSING RESTARTS GAP AGE", "AVAILABLE"},
		"few columns":   {74, "status -A", "NAMESPACE NAME DESIRED READY UP-TO-DATE MISSING RESTARTS GAP", "AVAILABLE, AGE"},
		"very few":      {50, "status -A", "NAMESPACE NAME DESIRED READY MISSING GAP", "AVAILABLE, AGE, UP-TO-DATE, RESTARTS"},
		"one namespace": {80, "status", strings.TrimPrefix(all, "NAMESPACE "), ""},
		"wide":          {80, "status -A -o wide", all + " SCHEDULED CREATED MISSCHEDULED HELD HELD ON", ""},
	} {
		t.Run(name, func(t *testing.T) {
			lines := onTerminal(t, tc.columns, world(), strings.Fields(tc.args)...)
			if diff := cmp.Diff(tc.header, strings.Join(strings.Fields(lines[0]), " ")); diff != "" {
				t.Errorf("(-want,+got):\n%s", diff)
			}
			text := strings.Join(strings.Fields(strings.Join(lines, " ")), " ")
			if said := strings.Contains(text, "Left out to fit the terminal: "+tc.left+" (-o wide shows all)."); said != (tc.left != "") {
				t.Errorf("says what is left out: %t, in %s", said, text)
			}
			for _, line := range lines[:5] {
				if columns(line) > int(tc.columns) && name != "wide" {
					t.Errorf("%d columns: %s", columns(line), line)
				}
			}
		})
	}
}
