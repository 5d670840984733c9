// Command protogen turns the .proto files of api/ into the Go code of api/gen.
//
// It needs neither protoc nor the network: the files are compiled in process
// and handed to the two plugins that this module pins (protoc-gen-go and
// protoc-gen-connect-go). With -check nothing is written; a difference between
// the committed code and a regeneration ends with exit code 1 and the names of
// the files.
//
//	cd tools && go run ./protogen          # regenerate
//	cd tools && go run ./protogen -check   # gate
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// genPath is the Go import path of api/gen; a package stands directly below it.
const genPath = "openshell.dev/openshell/api/gen"

// plugins in the order they run; each is `go tool name` of this module.
var plugins = []struct{ name, options string }{
	{"protoc-gen-go", ""},
	{"protoc-gen-connect-go", "simple"},
}

func main() {
	api := flag.String("api", filepath.Join("..", "api"), "directory of the .proto files; code goes to its gen/")
	check := flag.Bool("check", false, "write nothing, fail if the committed code differs")
	flag.Parse()
	if err := run(*api, *check); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(api string, check bool) error {
	request, err := compile(api)
	if err != nil {
		return err
	}
	want := map[string][]byte{}
	for _, p := range plugins {
		if err := generate(request, p.name, p.options, want); err != nil {
			return fmt.Errorf("running %s: %w", p.name, err)
		}
	}
	stale, err := compare(filepath.Join(api, "gen"), want)
	switch {
	case err != nil:
		return err
	case len(stale) == 0:
		return nil
	case check:
		return fmt.Errorf("%d files differ from a regeneration (run: cd tools && go run ./protogen):\n  %s",
			len(stale), strings.Join(stale, "\n  "))
	}
	return write(filepath.Join(api, "gen"), want, stale)
}

// compile reads every .proto file below api and returns the plugins' request,
// imports before importers, without options.
func compile(api string) (*pluginpb.CodeGeneratorRequest, error) {
	var names []string
	err := filepath.WalkDir(api, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".proto") {
			name, _ := filepath.Rel(api, path)
			names = append(names, filepath.ToSlash(name))
		}
		return err
	})
	if err == nil && len(names) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("finding .proto files below %s: %w", api, err)
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{api}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		return nil, fmt.Errorf("compiling: %w", err)
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: names}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		request.ProtoFile = append(request.ProtoFile, protodesc.ToFileDescriptorProto(file))
	}
	for _, file := range files {
		add(file)
	}
	return request, nil
}

// generate runs one plugin and adds its files, named relative to gen.
func generate(request *pluginpb.CodeGeneratorRequest, plugin, options string, into map[string][]byte) error {
	parameters := []string{"module=" + genPath}
	if options != "" {
		parameters = append(parameters, options)
	}
	for _, file := range request.ProtoFile {
		if slices.Contains(request.FileToGenerate, file.GetName()) {
			parameters = append(parameters, "M"+file.GetName()+"="+goPackage(file))
		}
	}
	request.Parameter = proto.String(strings.Join(parameters, ","))
	in, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	command := exec.Command("go", "tool", plugin)
	command.Stdin, command.Stderr = bytes.NewReader(in), os.Stderr
	out, err := command.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return fmt.Errorf("%s", response.GetError())
	}
	for _, file := range response.File {
		into[filepath.FromSlash(file.GetName())] = []byte(file.GetContent())
	}
	return nil
}

// goPackage names the Go package after the last two parts of the proto package:
// openshell.gateway_interceptor.v1 becomes gatewayinterceptorv1.
func goPackage(file *descriptorpb.FileDescriptorProto) string {
	parts := strings.Split(file.GetPackage(), ".")
	name := strings.ReplaceAll(strings.Join(parts[max(0, len(parts)-2):], ""), "_", "")
	return genPath + "/" + name + ";" + name
}

// compare returns the names that differ between the directory and want, either way.
func compare(gen string, want map[string][]byte) ([]string, error) {
	found := map[string]bool{}
	var stale []string
	err := filepath.WalkDir(gen, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) && path == gen {
			return fs.SkipAll
		}
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(gen, path)
		have, err := os.ReadFile(path)
		if content, ok := want[name]; !ok || !bytes.Equal(have, content) {
			stale = append(stale, name)
		}
		found[name] = true
		return err
	})
	for name := range want {
		if !found[name] {
			stale = append(stale, name)
		}
	}
	slices.Sort(stale)
	return stale, err
}

// write brings the stale files up to date and removes those no longer generated.
func write(gen string, want map[string][]byte, stale []string) error {
	for _, name := range stale {
		path := filepath.Join(gen, name)
		content, ok := want[name]
		if !ok {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
