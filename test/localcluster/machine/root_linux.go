// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// programDirs are the folders of the host that its programs are in, or need.
var programDirs = []string{"/bin", "/etc", "/lib", "/lib32", "/lib64", "/sbin", "/usr"}

// mount is a mount below the machine's root.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

// setUpRoot makes the machine's root file system and moves into it.
func setUpRoot(group string, o *Options) error {
	// Nothing of this is for the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	root := filepath.Join(o.Dir, "root")
	mounts, err := o.mounts(group)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := m.mount(root); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	for _, dir := range slices.Concat(programDirs, o.Programs) {
		if err := shareReadOnly(root, dir); err != nil {
			return fmt.Errorf("sharing %s: %w", dir, err)
		}
	}
	if err := os.Symlink("/run", filepath.Join(root, "var", "run")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return changeRoot(root)
}

// mounts returns the mounts of a machine in their order, but for programs.
func (o *Options) mounts(group string) ([]mount, error) {
	run, disk := filepath.Join(o.Dir, "run"), filepath.Join(o.Dir, "var")
	if err := os.RemoveAll(run); err != nil {
		return nil, err
	}
	for _, dir := range []string{run, filepath.Join(disk, "lib"), filepath.Join(disk, "log"), filepath.Join(disk, "tmp")} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // pods that are not root look into them, as on any machine
			return nil, err
		}
	}
	mounts := []mount{
		{source: "tmpfs", target: "/", fstype: "tmpfs", data: "mode=755"},
		{source: "tmpfs", target: "/tmp", fstype: "tmpfs", data: "mode=1777"},
		{source: "proc", target: "/proc", fstype: "proc", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{source: "sysfs", target: "/sys", fstype: "sysfs", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{source: "/dev", target: "/dev", flags: unix.MS_BIND | unix.MS_REC},
		{source: run, target: "/run", flags: unix.MS_BIND},
		{source: disk, target: "/var", flags: unix.MS_BIND},
		{source: o.Dir, target: o.Dir, flags: unix.MS_BIND},
	}
	for _, dir := range o.Shared {
		mounts = append(mounts, mount{source: dir, target: dir, flags: unix.MS_BIND})
	}
	groups, err := groupMounts(group)
	return append(mounts, groups...), err
}

// groupMounts has the machine see its control groups as if there were no others.
func groupMounts(name string) ([]mount, error) {
	group, err := newGroup(name)
	if err != nil {
		return nil, err
	}
	const target = "/sys/fs/cgroup"
	if path, unified := group.GetPaths()[""]; unified && len(group.GetPaths()) == 1 {
		return []mount{{source: path, target: target, flags: unix.MS_BIND}}, nil
	}
	mounts := []mount{{source: "tmpfs", target: target, fstype: "tmpfs", data: "mode=755"}}
	seen := make(map[string]bool)
	for controller, path := range group.GetPaths() {
		// Where version 1 has the controllers, version 2 is of no use.
		if controller == "" || seen[path] {
			continue
		}
		seen[path] = true
		hierarchy := filepath.Base(filepath.Dir(path))
		mounts = append(mounts, mount{source: path, target: filepath.Join(target, hierarchy), flags: unix.MS_BIND})
	}
	return mounts, nil
}

func (m mount) mount(root string) error {
	target := filepath.Join(root, m.target)
	if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // folders of a root file system
		return err
	}
	return unix.Mount(m.source, target, m.fstype, m.flags, m.data)
}

// shareReadOnly has the machine see a folder of the host, or the link in its
// place, but not change it.
func shareReadOnly(root, dir string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	target := filepath.Join(root, dir)
	if info.Mode()&fs.ModeSymlink != 0 {
		to, err := os.Readlink(dir)
		if err != nil {
			return err
		}
		return os.Symlink(to, target)
	}
	m := mount{source: dir, target: dir, flags: unix.MS_BIND}
	if err := m.mount(root); err != nil {
		return err
	}
	return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// changeRoot makes root the root of all that the process sees.
func changeRoot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	// The old root comes to lie on the new one, and is taken away (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	// What pods mount in a folder that they share with the machine, it has to see.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}
