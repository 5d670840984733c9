package cgroup

import (
	"math/big"
	"strings"

	"openshell.dev/openshell/internal/fault"
)

// Bounds of what may be asked for. The lower ones are what a sandbox needs to
// start at all; below them it dies for no visible reason.
const (
	minMemory = 16 << 20
	maxMemory = 1 << 50
	minCPU    = 10 // the kernel's least share: 1 ms in 100 ms
	maxCPU    = 1 << 20
	minPids   = 4
	maxPids   = 4 << 20
)

var memoryUnits = []struct {
	suffix string
	factor int64
}{
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40},
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	// As docker and systemd read them: powers of two.
	{"k", 1 << 10}, {"K", 1 << 10}, {"m", 1 << 20}, {"M", 1 << 20}, {"g", 1 << 30}, {"G", 1 << 30}, {"t", 1 << 40}, {"T", 1 << 40},
	{"b", 1}, {"B", 1},
}

// ParseMemory reads an amount of memory such as 512M, 4Gi, 1.5g or a number of bytes.
func ParseMemory(s string) (int64, error) {
	number, factor := s, int64(1)
	for _, u := range memoryUnits {
		if n, ok := strings.CutSuffix(s, u.suffix); ok && n != "" && isDigit(n[len(n)-1]) {
			number, factor = n, u.factor
			break
		}
	}
	v, ok := scaled(number, factor)
	if !ok {
		return 0, fault.New(fault.InvalidArgument, "%q is not an amount of memory", s).Hint("--memory 4Gi")
	}
	if v < minMemory || v > maxMemory {
		return 0, fault.New(fault.InvalidArgument, "memory of %q is out of range: 16Mi to 1024Ti", s).Hint("--memory 4Gi")
	}
	return v, nil
}

// ParseCPU reads a number of processors such as 2, 1.5 or 500m, and returns
// thousandths.
func ParseCPU(s string) (int64, error) {
	number, factor := s, int64(1000)
	if n, ok := strings.CutSuffix(s, "m"); ok {
		number, factor = n, 1
	}
	v, ok := scaled(number, factor)
	if !ok {
		return 0, fault.New(fault.InvalidArgument, "%q is not a number of processors", s).Hint("--cpu 1.5")
	}
	if v < minCPU || v > maxCPU {
		return 0, fault.New(fault.InvalidArgument, "%q processors are out of range: 0.01 to 1048", s).Hint("--cpu 1.5")
	}
	return v, nil
}

// ParsePids reads a number of processes.
func ParsePids(s string) (int64, error) {
	v, ok := scaled(s, 1)
	if !ok || strings.Contains(s, ".") {
		return 0, fault.New(fault.InvalidArgument, "%q is not a number of processes", s).Hint("--pids 2048")
	}
	if v < minPids || v > maxPids {
		return 0, fault.New(fault.InvalidArgument, "%q processes are out of range: 4 to 4194304", s).Hint("--pids 2048")
	}
	return v, nil
}

// scaled returns a plain decimal times factor, rounded down.
func scaled(s string, factor int64) (int64, bool) {
	if s == "" || len(s) > 24 || !isDigit(s[0]) || !isDigit(s[len(s)-1]) || strings.Count(s, ".") > 1 {
		return 0, false
	}
	for i := range len(s) {
		if !isDigit(s[i]) && s[i] != '.' {
			return 0, false
		}
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return 0, false
	}
	r.Mul(r, new(big.Rat).SetInt64(factor))
	n := new(big.Int).Quo(r.Num(), r.Denom())
	if !n.IsInt64() {
		return 0, false
	}
	return n.Int64(), true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// FormatMemory returns an amount as people say it: 4 GiB, 1.5 GiB, 300 bytes.
func FormatMemory(n int64) string {
	for _, u := range []struct {
		name   string
		factor int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.factor {
			s := new(big.Rat).SetFrac64(n, u.factor).FloatString(1)
			return strings.TrimSuffix(s, ".0") + " " + u.name
		}
	}
	return new(big.Int).SetInt64(n).String() + " bytes"
}
