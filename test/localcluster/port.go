// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// port is a free TCP port of the loopback address that belongs to us until it is
// closed: it is bound, but nobody listens on it. A component that is told to
// share its port (--permit-port-sharing) can listen there, and nobody else can
// take it before the component has started, or while it is started again.
type port struct {
	number int
	socket int
}

func reservePort() (*port, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, fmt.Errorf("reserving a port: %w", err)
	}
	unix.CloseOnExec(socket)
	p := &port{socket: socket}
	if err := p.bind(); err != nil {
		p.close()
		return nil, fmt.Errorf("reserving a port: %w", err)
	}
	return p, nil
}

func (p *port) bind() error {
	if err := unix.SetsockoptInt(p.socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	if err := unix.Bind(p.socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	address, err := unix.Getsockname(p.socket)
	if err != nil {
		return err
	}
	p.number = address.(*unix.SockaddrInet4).Port
	return nil
}

// listen returns a socket that listens on the port.
func (p *port) listen() (*os.File, error) {
	if err := unix.Listen(p.socket, unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", p.address(), err)
	}
	socket, err := unix.FcntlInt(uintptr(p.socket), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(socket), p.address()), nil
}

func (p *port) close() {
	// Nothing was written to the socket that closing it could lose.
	_ = unix.Close(p.socket)
}

// address returns host:port.
func (p *port) address() string {
	return fmt.Sprintf("127.0.0.1:%d", p.number)
}
