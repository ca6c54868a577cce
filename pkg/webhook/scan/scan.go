// Copyright The everynode Authors.
// SPDX-License-Identifier: Apache-2.0

// Package scan reads parts of JSON documents.
//
// Most of a pod is nothing that admission decides by: environments, probes, volumes. To
// decode it would take longer than all else that is done for a request. A [Scanner]
// passes over it, and looks no closer than it has to: that a value is no JSON shows only
// where the value is read.
package scan

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Scanner reads a document from its beginning to its end. Its methods each read one
// value, the next one. After an error they do nothing; [Scanner.End] returns it.
type Scanner struct {
	data []byte
	at   int
	err  error
}

// New returns a Scanner of a document, which has to stay as it is meanwhile.
func New(data []byte) *Scanner {
	return &Scanner{data: data}
}

// End returns the first error, with the path of the value that it is about. It is an
// error if the document goes on.
func (s *Scanner) End() error {
	s.peek()
	if s.err == nil && s.at < len(s.data) {
		s.fail("the end")
	}
	return s.err
}

// Object reads an object, or null. For every field it calls read, which reads the value,
// or does nothing: then the value is passed over. The name is valid until read returns; if
// it comes twice, so does the call.
func (s *Scanner) Object(read func(name []byte)) {
	if s.Null() || !s.take('{', "an object") {
		return
	}
	for first := true; s.more('}', first); first = false {
		name, _ := s.text()
		if !s.take(':', "a colon") {
			return
		}
		s.peek()
		start := s.at
		read(name)
		if s.at == start {
			s.Skip()
		}
		if s.err != nil {
			s.err = within(string(name), s.err)
		}
	}
}

// Array reads an array, or null. For every element it calls read, which has to read it.
func (s *Scanner) Array(read func()) {
	if s.Null() || !s.take('[', "an array") {
		return
	}
	for first := true; s.more(']', first); first = false {
		read()
	}
}

// String reads a string, or null, which leaves to as it is.
func String[T ~string](s *Scanner, to *T) {
	if s.Null() {
		return
	}
	if text, ok := s.text(); ok {
		*to = T(text)
	}
}

// Into decodes a value as encoding/json does, but strictly by its names.
func (s *Scanner) Into(to any) {
	if value := s.Value(); s.err == nil {
		s.Check(json.Unmarshal(value, to, jsontext.AllowDuplicateNames(true)))
	}
}

// Check makes err, unless it is nil, an error about the value that was read last.
func (s *Scanner) Check(err error) {
	if s.err == nil {
		s.err = err
	}
}

// Null reads null and says so, or reads nothing.
func (s *Scanner) Null() bool {
	if s.peek() != 'n' || !bytes.HasPrefix(s.data[s.at:], []byte("null")) {
		return false
	}
	s.at += len("null")
	return true
}

// Value returns the next value as it stands.
func (s *Scanner) Value() []byte {
	s.peek()
	start := s.at
	s.Skip()
	return s.data[start:s.at]
}

// Skip passes over a value.
func (s *Scanner) Skip() {
	switch s.peek() {
	case 0:
		s.fail("a value")
	case '"':
		s.skipString()
	case '{', '[':
		s.skipNested()
	default:
		s.skipLiteral()
	}
}

// skipNested passes over an object or an array.
func (s *Scanner) skipNested() {
	data, depth := s.data, 0
	for at := s.at; at < len(data); at++ {
		switch data[at] {
		case '"':
			at = closing(data, at)
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				s.at = at + 1
				return
			}
		}
	}
	s.at = len(data)
	s.fail("the end of an object or array")
}

// skipLiteral passes over a number, true, false or null.
func (s *Scanner) skipLiteral() {
	start := s.at
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ',', '}', ']', ':', '"', '{', '[', ' ', '\t', '\r', '\n':
			if s.at == start {
				s.fail("a value")
			}
			return
		}
		s.at++
	}
}

// skipString passes over a string, and says whether it has an end.
func (s *Scanner) skipString() bool {
	end := closing(s.data, s.at)
	if end >= len(s.data) {
		s.at = len(s.data)
		s.fail("the end of a string")
		return false
	}
	s.at = end + 1
	return true
}

// closing returns where the string ends that begins with the quote at start; the length
// of data or more if it does not. Most strings are so short that bytes.IndexByte takes longer.
func closing(data []byte, start int) int {
	at := start + 1
	for ; at < len(data) && data[at] != '"'; at++ {
		if data[at] == '\\' {
			at++
		}
	}
	return at
}

// text reads a string, and returns it without its quotes and escapes.
func (s *Scanner) text() ([]byte, bool) {
	if s.peek() != '"' {
		s.fail("a string")
		return nil, false
	}
	start := s.at
	if !s.skipString() {
		return nil, false
	}
	quoted := s.data[start:s.at]
	if text := quoted[1 : len(quoted)-1]; plain(text) {
		return text, true
	}
	text, err := jsontext.AppendUnquote(nil, quoted)
	s.Check(err)
	return text, err == nil
}

// plain says whether a string is made of printable ASCII without escapes.
func plain(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	return true
}

// more says whether there is another field or element, and reads what is in front of it,
// or the end.
func (s *Scanner) more(end byte, first bool) bool {
	switch c := s.peek(); {
	case s.err != nil:
		return false
	case c == end:
		s.at++
		return false
	case first:
		return true
	}
	return s.take(',', "a comma")
}

// take reads a byte that has to be there.
func (s *Scanner) take(c byte, what string) bool {
	if s.peek() != c {
		s.fail(what)
	}
	if s.err != nil {
		return false
	}
	s.at++
	return true
}

// peek returns the next byte that is no white space; 0 at the end, and after an error.
func (s *Scanner) peek() byte {
	if s.err != nil {
		return 0
	}
	for ; s.at < len(s.data); s.at++ {
		switch c := s.data[s.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// fail makes it an error that something else is here.
func (s *Scanner) fail(want string) {
	switch {
	case s.err != nil:
	case s.at >= len(s.data):
		s.err = fmt.Errorf("want %s: %w", want, io.ErrUnexpectedEOF)
	default:
		s.err = fmt.Errorf("want %s, got %s", want, kind(s.data[s.at]))
	}
}

// kind says what begins with a byte.
func kind(c byte) string {
	switch {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == '-' || '0' <= c && c <= '9':
		return "a number"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	}
	return fmt.Sprintf("%q", c)
}

// pathError is an error about the value at a path.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return e.path + ": " + e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }

// within puts a name in front of the path of an error.
func within(name string, err error) error {
	if inner := (*pathError)(nil); errors.As(err, &inner) {
		return &pathError{name + "." + inner.path, inner.err}
	}
	return &pathError{name, err}
}
