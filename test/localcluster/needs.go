// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"everynode.dev/everynode/test/localcluster/machine"
)

// MissingForRealNodes returns what real nodes need and this machine does not have,
// each with the way to get it. binDir is the folder with the programs; if those of
// real nodes are not in it yet, what it takes to build them is needed as well.
func MissingForRealNodes(binDir string) []string {
	if runtime.GOOS != "linux" {
		return []string{"Linux (this is " + runtime.GOOS + ")"}
	}
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root's rights (run it with sudo)")
	}
	nft, err := findProgram("nft")
	if err != nil {
		missing = append(missing, "nft (install the package nftables)")
	}
	if len(missingPrograms(binDir)) > 0 {
		missing = append(missing, missingToBuild()...)
	}
	if len(missing) > 0 {
		return missing
	}
	if err := tryMachine(filepath.Join(binDir, "localcluster"), nft); err != nil {
		missing = append(missing, fmt.Sprintf("a kernel that lets us make machines of namespaces (%v)", err))
	}
	return missing
}

// findProgram also looks where root's programs are, which users may not have in their path.
func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

// missingPrograms returns the programs of real nodes that are not built.
func missingPrograms(binDir string) []string {
	var missing []string
	for _, program := range realPrograms {
		if _, err := os.Stat(filepath.Join(binDir, "node", program)); err != nil {
			missing = append(missing, program)
		}
	}
	return missing
}

// missingToBuild returns what the programs of real nodes cannot be built without.
func missingToBuild() []string {
	var missing []string
	if _, err := exec.LookPath("cc"); err != nil {
		missing = append(missing, "a C compiler (install the package gcc)")
	}
	if _, err := exec.LookPath("pkg-config"); err != nil {
		return append(missing, "pkg-config and the headers of libseccomp (install the packages pkg-config and libseccomp-dev)")
	}
	if err := exec.Command("pkg-config", "--exists", "libseccomp").Run(); err != nil { //nolint:noctx // it answers at once
		missing = append(missing, "the headers of libseccomp (install the package libseccomp-dev)")
	}
	return missing
}

// tryMachine makes a machine and looks whether packets can be filtered in it.
func tryMachine(self, nft string) (err error) {
	c := &Cluster{options: Options{BinDir: filepath.Dir(self)}, self: self, machines: &machines{}}
	defer c.Stop()
	if err := c.makeDir(); err != nil {
		return err
	}
	if c.machines.rack, err = machine.NewRack(self); err != nil {
		return err
	}
	m, err := c.bootMachine(c.machineOptions("trial", controlPlaneAddress))
	if err != nil {
		return err
	}
	p, err := c.launch("nft", m.Command(nft, "add", "table", "trial"), m.Start)
	if err != nil {
		return err
	}
	<-p.exited
	if p.err != nil {
		return fmt.Errorf("%w: %s", p.err, strings.TrimSpace(p.tail(1)))
	}
	return nil
}

// checkReal says by its error all that real nodes lack here.
func (c *Cluster) checkReal() error {
	if c.options.RealNodes > MaxRealNodes {
		return fmt.Errorf("%d real nodes are too many, at most %d have addresses", c.options.RealNodes, MaxRealNodes)
	}
	missing := MissingForRealNodes(c.options.BinDir)
	if programs := missingPrograms(c.options.BinDir); len(programs) > 0 {
		missing = append(missing, strings.Join(programs, ", ")+" (run make build-real)")
	}
	if len(missing) > 0 {
		return errors.New("real nodes need " + strings.Join(missing, "; "))
	}
	return nil
}
