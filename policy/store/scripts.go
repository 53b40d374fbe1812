package store

import (
	_ "embed" // the scripts
	"fmt"

	"github.com/redis/rueidis"

	"github.com/hookauthz/hookauthz/policy"
)

// The scripts that run in the server. Each is one command and one round trip.
var (
	//go:embed script/record.lua
	recordScript string
	//go:embed script/take.lua
	takeScript string
	//go:embed script/release.lua
	releaseScript string
	//go:embed script/settle.lua
	settleScript string
	//go:embed script/alive.lua
	aliveScript string
	//go:embed script/uses.lua
	usesScript string
	//go:embed script/swap.lua
	swapScript string
	//go:embed script/probe.lua
	probeScript string
)

// scripts are called by their SHA-1; a server that does not know one, after a restart or SCRIPT FLUSH, is sent its text.
type scripts struct {
	take, release, settle, alive, uses, swap, probe *rueidis.Lua
}

func newScripts() scripts {
	shared := fmt.Sprintf("local MAX_RELEASES, STREAM_WINDOW, MAX_TAKERS = %d, %d, %d\n", policy.MaxReleases, policy.StreamWindow.Microseconds(), maxTakers) + recordScript
	return scripts{
		take:    rueidis.NewLuaScript(shared + takeScript),
		release: rueidis.NewLuaScript(shared + releaseScript),
		settle:  rueidis.NewLuaScript(shared + settleScript),
		alive:   rueidis.NewLuaScript(aliveScript),
		uses:    rueidis.NewLuaScript(usesScript),
		swap:    rueidis.NewLuaScript(swapScript),
		probe:   rueidis.NewLuaScript(probeScript),
	}
}
