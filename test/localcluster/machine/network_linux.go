// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// plugIn connects the machine to the rack's network.
func (m *Machine) plugIn() error {
	links := m.rack.links
	port, err := links.LinkByName(m.options.Name)
	switch {
	case err == nil:
		// The kernel takes its time to remove that of a machine which was cut off.
		if err := links.LinkDel(port); err != nil {
			return err
		}
	case !errors.As(err, &netlink.LinkNotFoundError{}):
		return err
	}
	cable := netlink.NewLinkAttrs()
	cable.Name, cable.MasterIndex, cable.Flags = m.options.Name, m.rack.bridge.Attrs().Index, net.FlagUp
	err = links.LinkAdd(&netlink.Veth{LinkAttrs: cable, PeerName: "eth0", PeerNamespace: netlink.NsFd(m.network)})
	if err != nil {
		return fmt.Errorf("adding a pair of interfaces: %w", err)
	}
	inside, err := netlink.NewHandleAt(m.network)
	if err != nil {
		return err
	}
	defer inside.Close()
	return m.configure(inside)
}

// configure gives the machine its address and routes.
func (m *Machine) configure(inside *netlink.Handle) error {
	loopback, err := inside.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := inside.LinkSetUp(loopback); err != nil {
		return err
	}
	eth0, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr(m.options.Address)
	if err != nil {
		return err
	}
	if err := inside.AddrAdd(eth0, address); err != nil {
		return fmt.Errorf("adding address %s: %w", address, err)
	}
	if err := inside.LinkSetUp(eth0); err != nil {
		return err
	}
	all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	routes := []netlink.Route{{Dst: all, Scope: netlink.SCOPE_LINK}}
	for network, gateway := range m.options.Routes {
		_, destination, err := net.ParseCIDR(network)
		if err != nil {
			return err
		}
		routes = append(routes, netlink.Route{Dst: destination, Gw: net.ParseIP(gateway)})
	}
	for _, route := range routes {
		route.LinkIndex = eth0.Attrs().Index
		if err := inside.RouteAdd(&route); err != nil {
			return fmt.Errorf("adding route %s: %w", route, err)
		}
	}
	return nil
}
