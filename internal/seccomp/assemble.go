package seccomp

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets into struct seccomp_data, which is what the filter reads. Both of our
// architectures are little-endian: the low half of an argument comes first.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
	argSize   = 8
)

// maxInstructions is the kernel's limit for one filter (BPF_MAXINSNS).
const maxInstructions = 4096

// Assemble checks the table and turns it into instructions.
//
// The calls form a balanced tree over their numbers, so a call without a rule
// costs about eight comparisons, and since Linux 5.11 none at all: the kernel
// finds at installation which numbers are always allowed. An error names the row.
func (p Program) Assemble() ([]unix.SockFilter, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	order := make([]int, len(p.Rules))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p.Rules[a].NR, p.Rules[b].NR) })

	a := assembler{rev: make([]unix.SockFilter, 0, 512)}
	leaves, err := p.leaves(&a, order)
	if err != nil {
		return nil, err
	}
	a.load(a.tree(leaves), offNumber)
	number := len(a.rev)
	a.jump(unix.BPF_JEQ, p.Arch, number, a.answer(p.Foreign))
	a.load(len(a.rev), offArch)
	if len(a.rev) > maxInstructions {
		return nil, fmt.Errorf("assemble the filter: %d instructions, the kernel takes %d", len(a.rev), maxInstructions)
	}
	slices.Reverse(a.rev)
	return a.rev, nil
}

// leaf is where the tree leads for numbers from start up to the next leaf.
type leaf struct {
	start uint32
	label int
	plain Action // the constant answer if there is one, else 0
}

// leaves emits the code of each call with rules, in order of number, and fills
// the gaps with the default. Neighbours with one constant answer are merged.
func (p Program) leaves(a *assembler, order []int) ([]leaf, error) {
	out := make([]leaf, 0, 2*len(order)+2)
	add := func(start uint32, label int, plain Action) {
		if n := len(out); n > 0 && plain != 0 && out[n-1].plain == plain {
			return
		}
		out = append(out, leaf{start, label, plain})
	}
	next := uint32(0) // first number not yet covered
	for i := 0; i < len(order); {
		nr := p.Rules[order[i]].NR
		j := i + 1
		for j < len(order) && p.Rules[order[j]].NR == nr {
			if len(p.Rules[order[j-1]].When) == 0 {
				return nil, fmt.Errorf("assemble the filter: %q can never be reached", p.Rules[order[j]])
			}
			j++
		}
		if nr > next {
			add(next, a.answer(p.Default), p.Default)
		}
		if first := p.Rules[order[i]]; len(first.When) == 0 {
			add(nr, a.answer(first.Do), first.Do)
		} else {
			add(nr, a.call(p, order[i:j]), 0)
		}
		next, i = nr+1, j
	}
	if next <= p.Last {
		add(next, a.answer(p.Default), p.Default)
	}
	add(p.Last+1, a.answer(p.Beyond), p.Beyond)
	return out, nil
}

func (p Program) check() error {
	if p.Arch == 0 || p.Last == 0 || p.Last >= 1<<30 {
		return fmt.Errorf("assemble the filter: no architecture or no highest number")
	}
	if !p.Foreign.valid() || !p.Beyond.valid() || !p.Default.valid() || p.Foreign == Allow {
		return fmt.Errorf("assemble the filter: a catch-all answer is missing or not allowed")
	}
	for _, r := range p.Rules {
		switch {
		case r.Call == "" || r.Why == "":
			return fmt.Errorf("assemble the filter: row %q has no name or no reason", r)
		case r.NR > p.Last:
			return fmt.Errorf("assemble the filter: %s is number %d, above the reviewed %d", r.Call, r.NR, p.Last)
		case !r.Do.valid():
			return fmt.Errorf("assemble the filter: %q has no valid answer", r)
		}
		for _, c := range r.When {
			if !c.valid() {
				return fmt.Errorf("assemble the filter: %q has a condition that makes no sense", r)
			}
		}
	}
	return nil
}

// assembler emits instructions backwards: jumps of this machine only go
// forward, so when a jump is emitted its targets are already in place. A label
// is the length of rev after the target was emitted.
type assembler struct {
	rev     []unix.SockFilter
	answers [16]struct {
		do    Action
		label int
	}
	known int
}

func (a *assembler) emit(code uint16, jt, jf uint8, k uint32) int {
	a.rev = append(a.rev, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
	return len(a.rev)
}

// reach returns a label at most 255 instructions ahead that leads to the label.
func (a *assembler) reach(label int) int {
	if len(a.rev)-label <= 253 { // room for the other side's trampoline
		return label
	}
	return a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(len(a.rev)-label))
}

// follow makes sure that what is emitted next falls through to the label.
func (a *assembler) follow(label int) {
	if label != len(a.rev) {
		a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(len(a.rev)-label))
	}
}

// load emits a word load that goes on at the label.
func (a *assembler) load(label int, offset uint32) int {
	a.follow(label)
	return a.emit(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, offset)
}

// jump emits a comparison of the accumulator.
func (a *assembler) jump(op uint16, k uint32, yes, no int) int {
	if yes == no {
		return yes
	}
	yes = a.reach(yes)
	no = a.reach(no)
	n := len(a.rev)
	return a.emit(unix.BPF_JMP|op|unix.BPF_K, uint8(n-yes), uint8(n-no), k)
}

// answer returns the label of a return instruction, a near one if there is one.
func (a *assembler) answer(do Action) int {
	for i := range a.known {
		if e := &a.answers[i]; e.do == do {
			if len(a.rev)-e.label > 200 {
				e.label = a.emit(unix.BPF_RET|unix.BPF_K, 0, 0, uint32(do))
			}
			return e.label
		}
	}
	label := a.emit(unix.BPF_RET|unix.BPF_K, 0, 0, uint32(do))
	if a.known < len(a.answers) {
		a.answers[a.known].do, a.answers[a.known].label = do, label
		a.known++
	}
	return label
}

// call emits the rules of one call: the first that matches answers.
func (a *assembler) call(p Program, rules []int) int {
	next := a.answer(p.Default)
	for i := len(rules) - 1; i >= 0; i-- {
		r := &p.Rules[rules[i]]
		label := a.answer(r.Do)
		for j := len(r.When) - 1; j >= 0; j-- {
			label = a.cond(r.When[j], label, next)
		}
		next = label
	}
	return next
}

func (a *assembler) cond(c Cond, yes, no int) int {
	var label int
	if c.Op == AnySet {
		label = a.jump(unix.BPF_JSET, c.Mask, yes, no)
	} else {
		if c.Op == NotIn {
			yes, no = no, yes
		}
		label = no
		for i := len(c.Values) - 1; i >= 0; i-- {
			label = a.jump(unix.BPF_JEQ, c.Values[i], yes, label)
		}
		if c.Mask != 0 {
			a.follow(label)
			label = a.emit(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0, 0, c.Mask)
		}
	}
	return a.load(label, uint32(offArgs+argSize*c.Arg))
}

// tree emits the search for the leaf of a number that is in the accumulator.
func (a *assembler) tree(leaves []leaf) int {
	if len(leaves) == 1 {
		if leaves[0].plain != 0 {
			return a.answer(leaves[0].plain)
		}
		return leaves[0].label
	}
	mid := len(leaves) / 2
	high := a.tree(leaves[mid:])
	low := a.tree(leaves[:mid])
	return a.jump(unix.BPF_JGE, leaves[mid].start, high, low)
}
