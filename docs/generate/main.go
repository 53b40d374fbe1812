// Generate writes the pages of docs that are made from data: schemes.md, handshakes.md, lists.md,
// lint.md and metrics.md. Run it at the root of the module.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := write("docs"); err != nil {
		fmt.Fprintf(os.Stderr, "generate: %v\n", err)
		os.Exit(1)
	}
}

// write writes every page into an existing folder.
func write(dir string) error {
	all, err := pages()
	if err != nil {
		return err
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("writing a page: %w", err)
		}
	}
	return nil
}

// pages are the generated pages by file name.
func pages() (map[string]string, error) {
	rules, err := lintPage()
	if err != nil {
		return nil, err
	}
	metrics, err := metricsPage()
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"schemes.md":    schemesPage(),
		"handshakes.md": handshakesPage(),
		"lists.md":      listsPage(),
		"lint.md":       rules,
		"metrics.md":    metrics,
	}, nil
}
