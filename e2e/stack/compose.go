package stack

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// service is what is read of a service of docker-compose.yml.
type service struct {
	Command []string `yaml:"command"`
	EnvFile []string `yaml:"env_file"`
	Volumes []string `yaml:"volumes"`
	Health  struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
}

// Compose is docker-compose.yml.
type Compose struct {
	root     string
	Services map[string]service `yaml:"services"`
}

// ReadCompose reads the docker-compose.yml of a checkout.
func ReadCompose(root string) (*Compose, error) {
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		return nil, err
	}
	c := &Compose{root: root}
	if err := yaml.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("docker-compose.yml: %w", err)
	}
	return c, nil
}

// Args are the arguments of a service, with the words of replace, and folders that the service mounts, put into the place of the
// container's. Named volumes stand in volumes, by name. Every word of replace must occur.
func (c *Compose) Args(name string, replace, volumes map[string]string) ([]string, error) {
	s, ok := c.Services[name]
	if !ok {
		return nil, fmt.Errorf("docker-compose.yml: no service %q", name)
	}
	used := make(map[string]bool)
	var args []string
	for _, word := range s.Command {
		if to, ok := replace[word]; ok {
			used[word] = true
			word = to
		} else if strings.HasPrefix(word, "/") {
			host, err := c.hostPath(s, word, volumes)
			if err != nil {
				return nil, fmt.Errorf("docker-compose.yml: service %q: %w", name, err)
			}
			word = host
		}
		args = append(args, word)
	}
	for word := range replace {
		if !used[word] {
			return nil, fmt.Errorf("docker-compose.yml: service %q: no argument %q to replace", name, word)
		}
	}
	return args, nil
}

// hostPath is where a path in the container stands on this machine.
func (c *Compose) hostPath(s service, path string, volumes map[string]string) (string, error) {
	for _, v := range s.Volumes {
		parts := strings.Split(v, ":")
		if len(parts) < 2 {
			return "", fmt.Errorf("volume %q: wanted SOURCE:TARGET", v)
		}
		rest, ok := strings.CutPrefix(path, parts[1])
		if !ok || (rest != "" && rest[0] != '/') {
			continue
		}
		if strings.HasPrefix(parts[0], ".") {
			return filepath.Join(c.root, parts[0], rest), nil
		}
		dir, ok := volumes[parts[0]]
		if !ok {
			return "", fmt.Errorf("no folder for the volume %q", parts[0])
		}
		return filepath.Join(dir, rest), nil
	}
	return "", fmt.Errorf("%q is mounted from nowhere", path)
}

// Env is the environment that a service gets from its env_file, as NAME=value.
func (c *Compose) Env(name string) ([]string, error) {
	var env []string
	for _, file := range c.Services[name].EnvFile {
		vars, err := readEnv(filepath.Join(c.root, file))
		if err != nil {
			return nil, err
		}
		env = append(env, vars...)
	}
	return env, nil
}

// readEnv reads lines of NAME=value or NAME="value".
func readEnv(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var env []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("%s: %q: wanted NAME=value", path, line)
		}
		if strings.HasPrefix(value, `"`) {
			if value, err = strconv.Unquote(value); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", path, name, err)
			}
		}
		env = append(env, name+"="+value)
	}
	return env, lines.Err()
}
