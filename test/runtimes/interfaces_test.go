package runtimes

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/openshell/test/fetched"
	"openshell.dev/openshell/test/person"
)

// wantInterfaces checks that lo and one more interface were listed, and
// nothing else; addresses says whether the runtime lists these too.
func wantInterfaces(t *testing.T, r person.Result, addresses bool) {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("%v", r)
	}
	names, all := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(r.Stdout) {
		name, address, _ := strings.Cut(strings.TrimSpace(line), " ")
		names[name] = true
		address, _, _ = strings.Cut(address, "%") // a scope, as Java writes it
		all[address] = true
		if addresses && address == "10.200.0.2" && name == "lo" {
			t.Errorf("the address is on lo: %v", r)
		}
	}
	if len(names) != 2 || !names["lo"] {
		t.Errorf("want lo and one more interface: %v", r)
	}
	if addresses && (!all["127.0.0.1"] || !all["10.200.0.2"]) {
		t.Errorf("want 127.0.0.1 and 10.200.0.2: %v", r)
	}
}

// undumpable is a library which, preloaded, makes a program not dumpable.
func undumpable(t *testing.T, dir string) string {
	t.Helper()
	lib := filepath.Join(dir, "undump.so")
	compile(t, "gcc", "-shared", "-fPIC", "-o", lib, testdata(t, "undump.c"))
	return lib
}

func TestNodeListsInterfaces(t *testing.T) {
	dir := tools(t)
	lib := undumpable(t, dir)
	for _, major := range []int{22, 24, 26} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			bin := fetched.NodeBin(t, major)
			eachDoor(t, func(t *testing.T, p *person.Person, d door) {
				script := source(t, p, "interfaces.mjs")
				run := d.open(t, p, bin, dir)
				node := filepath.Join(bin, "node")
				wantInterfaces(t, run(node, script), true)
				wantInterfaces(t, run("env", "LD_PRELOAD="+lib, node, script), true)
			})
		})
	}
}

func TestPythonListsInterfaces(t *testing.T) {
	dir := tools(t)
	lib := undumpable(t, dir)
	packages := fetched.Python(t)
	eachDoor(t, func(t *testing.T, p *person.Person, d door) {
		script := source(t, p, "interfaces.py")
		run := d.open(t, p, packages, dir)
		for _, how := range []string{"socket", "psutil"} {
			for _, preload := range []string{"", lib} {
				r := run("env", "PYTHONPATH="+packages, "LD_PRELOAD="+preload, fetched.SystemPython, script, how)
				wantInterfaces(t, r, how == "psutil")
			}
		}
	})
}

func TestJavaListsInterfaces(t *testing.T) {
	dir := tools(t)
	lib := undumpable(t, dir)
	compile(t, "javac", "-d", dir, testdata(t, "Interfaces.java"))
	java := fetched.Command(t, "java")
	eachDoor(t, func(t *testing.T, p *person.Person, d door) {
		run := d.open(t, p, dir)
		wantInterfaces(t, run(java, "-cp", dir, "Interfaces"), true)
		wantInterfaces(t, run("env", "LD_PRELOAD="+lib, java, "-cp", dir, "Interfaces"), true)
	})
}

func TestGoListsInterfaces(t *testing.T) {
	dir := tools(t)
	program := filepath.Join(dir, "interfaces")
	compileGo(t, program, "interfaces")
	eachDoor(t, func(t *testing.T, p *person.Person, d door) {
		run := d.open(t, p, dir)
		wantInterfaces(t, run(program), true)
		wantInterfaces(t, run(program, "undumpable"), true)
	})
}

func TestCListsInterfaces(t *testing.T) {
	for _, tt := range []struct {
		name, compiler string
		flags          []string
	}{
		{"glibc", "gcc", nil},
		{"glibc static", "gcc", []string{"-static", "-Wl,-w"}},
		{"musl", "musl-gcc", nil},
		{"musl static", "musl-gcc", []string{"-static"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tools(t)
			program := filepath.Join(dir, "interfaces")
			compile(t, tt.compiler, append(tt.flags, "-O1", "-o", program, testdata(t, "interfaces.c"))...)
			eachDoor(t, func(t *testing.T, p *person.Person, d door) {
				run := d.open(t, p, dir)
				wantInterfaces(t, run(program), true)
				wantInterfaces(t, run(program, "undumpable"), true)
			})
		})
	}
}
