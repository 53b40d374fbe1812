package source

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bounds of an address list.
const (
	maxListEntries = 100_000
	maxListLine    = 4096
)

// ParseList reads a published list of addresses: "lines", one a line with # for comments, or "json", where pointer (RFC 6901, and * for
// every element) leads to addresses or lists of them. Every entry must be an address or a range, and none may be every address.
func ParseList(data []byte, format, pointer string) ([]netip.Prefix, error) {
	var entries []string
	var err error
	switch format {
	case "lines":
		entries, err = listLines(data)
	case "json":
		entries, err = listJSON(data, pointer)
	default:
		return nil, fmt.Errorf("the format %q is neither json nor lines", format)
	}
	if err != nil {
		return nil, err
	}
	prefixes := make([]netip.Prefix, 0, len(entries))
	for i, entry := range entries {
		p, err := ParsePrefix(entry)
		switch {
		case err != nil:
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		case p.Bits() == 0:
			return nil, fmt.Errorf("entry %d: %s is every address", i+1, p)
		}
		prefixes = append(prefixes, p)
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	prefixes = slices.Compact(prefixes)
	if len(prefixes) == 0 {
		return nil, errors.New("the list is empty")
	}
	return prefixes, nil
}

func listLines(data []byte) ([]string, error) {
	var entries []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxListLine)
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if len(entries) == maxListEntries {
			return nil, fmt.Errorf("the list has more than %d entries", maxListEntries)
		}
		entries = append(entries, text)
	}
	return entries, lines.Err()
}

func listJSON(data []byte, pointer string) ([]string, error) {
	var document any
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, errors.New("the list is not JSON")
	}
	values := []any{document}
	if pointer != "" {
		steps := strings.Split(pointer, "/")
		if steps[0] != "" {
			return nil, fmt.Errorf("the pointer %q does not begin with /", pointer)
		}
		for _, step := range steps[1:] {
			values = follow(values, strings.NewReplacer("~1", "/", "~0", "~").Replace(step))
		}
	}
	var entries []string
	for _, v := range values {
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		for _, entry := range list {
			text, ok := entry.(string)
			if !ok {
				return nil, fmt.Errorf("the pointer %q leads to what is no address", pointer)
			}
			if len(entries) == maxListEntries {
				return nil, fmt.Errorf("the list has more than %d entries", maxListEntries)
			}
			entries = append(entries, text)
		}
	}
	return entries, nil
}

// follow takes one step of a pointer from every value.
func follow(values []any, step string) []any {
	var out []any
	for _, v := range values {
		switch v := v.(type) {
		case map[string]any:
			if next, ok := v[step]; ok {
				out = append(out, next)
			}
		case []any:
			if step == "*" {
				out = append(out, v...)
			} else if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(v) {
				out = append(out, v[i])
			}
		}
	}
	return out
}

// Succeeds reports why a list must not take the place of another, or nil: a list that loses more than half of its entries at once is
// more likely broken than true.
func Succeeds(old, next []netip.Prefix) error {
	if len(old) > 0 && 2*len(next) < len(old) {
		return fmt.Errorf("the list shrank from %d entries to %d", len(old), len(next))
	}
	return nil
}
