// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package docs runs the commands of the pages that teach, Start and the tutorial, on
// local clusters. It is about commands and what they print; links and the form of
// pages are checked in the folder docs.
package docs
