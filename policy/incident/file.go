package incident

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// readFile reads a state file; one that is not there yet holds nothing.
func readFile(path string) (map[string]Incident, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return decode(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the state file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("reading the state file: %w", err)
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("the state file %q is empty", path)
	}
	all, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("the state file %q: %w", path, err)
	}
	return all, nil
}

// writeFile puts a state file in the place of the one before, whole or not at all, also where the power fails.
func writeFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing the state file: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("writing the state file: %w", err)
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
